"""What a user of the command sees, with its exit codes."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from chatter_db import migrating
from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.polling import WAITS_FOR_A_LOCK
from tests.providers import openai

COMMANDS = ["migrate", "demo", "import", "adopt", "check", "status", "doctor", "trace", "psql"]


def assert_no_traceback(output: str) -> None:
    assert "Traceback" not in output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(chatter_command: Run, command: str) -> None:
    done = chatter_command(command, "--help")
    assert done.returncode == 0
    assert f"chatter {command}" in done.stdout


def test_the_help_names_every_command(chatter_command: Run) -> None:
    done = chatter_command("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout


def test_version(chatter_command: Run) -> None:
    assert chatter_command("--version").stdout.startswith("chatter-db 0.")


def test_an_unknown_command_is_wrong_use(chatter_command: Run) -> None:
    done = chatter_command("frobnicate")
    assert done.returncode == 2
    assert_no_traceback(done.stderr)


@pytest.mark.parametrize("command", ["migrate", "status", "check", "demo"])
def test_a_url_of_something_else_is_wrong_use(chatter_command: Run, command: str) -> None:
    done = chatter_command(command, url="mysql://user:secret@localhost/db")
    assert done.returncode == 2
    assert "must begin with postgresql://" in done.stderr
    assert "secret" not in done.stderr
    assert_no_traceback(done.stderr)


def test_a_terminal_that_does_not_know_its_width_is_told(chatter_command: Run, url: str) -> None:
    done = chatter_command("import", "calls", url=url, COLUMNS="0")
    assert done.returncode == 2
    assert "Can't tell the format of calls" in done.stderr


def test_a_parameter_of_the_url_that_is_none(chatter_command: Run) -> None:
    done = chatter_command("status", url="postgresql://u:secret@127.0.0.1:1/db?connect_timeout=é")
    assert done.returncode == 2
    assert "connect_timeout" in done.stderr
    assert "secret" not in done.stderr
    assert_no_traceback(done.stderr)


@pytest.mark.parametrize("password", ["sec/ret", "sec%zzret", "sec@ret:x/", "sec@ret", "1/sec"])
def test_a_password_that_was_not_encoded_is_not_shown(chatter_command: Run, password: str) -> None:
    done = chatter_command("status", url=f"postgresql://user:{password}@127.0.0.1:1/db")
    assert done.returncode == 2
    assert "percent-encoded" in done.stderr
    assert "sec" not in done.stderr
    assert_no_traceback(done.stderr)


@ONE_SERVER
def test_a_connection_lost_half_way_is_said(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    ended = f"select pg_terminate_backend(pid) from ({WAITS_FOR_A_LOCK}) as waiting".encode()
    with psycopg.connect(url) as busy, ThreadPoolExecutor(1) as pool:
        busy.execute("lock chatter.messages")
        checking = pool.submit(chatter_command, "check", url=url)
        while not db.execute(ended).fetchall():
            assert not checking.done(), checking.result().stderr
        done = checking.result()
    assert done.returncode == 1
    assert "Lost the connection to Postgres at 127.0.0.1:" in done.stderr
    assert_no_traceback(done.stderr)


@pytest.mark.parametrize("command", ["check", "tail --count 1", "tail --after oldest --count 1"])
@ONE_SERVER
def test_what_postgres_can_not_do_now_is_said(chatter_command: Run, url: str, command: str) -> None:
    with psycopg.connect(url) as busy:
        busy.execute("lock chatter.messages, chatter.events")
        done = chatter_command(*command.split(), url=f"{url}?options=-c%20lock_timeout%3D50")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: Postgres can't do that now: canceling statement due to lock timeout "
        "(SQLSTATE 55P03)."
    )
    assert_no_traceback(done.stderr)


@pytest.mark.parametrize("command", ["migrate", "status", "check", "demo"])
def test_an_unreachable_server_is_named_without_its_password(
    chatter_command: Run, command: str
) -> None:
    done = chatter_command(command, url="postgresql://user:secret@127.0.0.1:1/db")
    assert done.returncode == 1
    assert "No connection to Postgres at 127.0.0.1:1/db" in done.stderr
    assert "secret" not in done.stderr
    assert_no_traceback(done.stderr)


def test_migrate_says_what_it_did(chatter_command: Run, db: psycopg.Connection[Any]) -> None:
    name = f"{db.info.dbname}_new"
    db.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    try:
        url = f"postgresql://{db.info.user}:{db.info.password}@{db.info.host}:{db.info.port}/{name}"
        needs = chatter_command("status", url=url)
        assert (needs.returncode, "Run: chatter migrate" in needs.stderr) == (1, True)
        assert (
            f"migrated to version {migrating.head()}" in chatter_command("migrate", url=url).stdout
        )
        assert (
            f"is at version {migrating.head()} already"
            in chatter_command("migrate", url=url).stdout
        )
    finally:
        db.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))


def test_check_of_books_whose_views_were_restored_without_their_rows(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    """As where the schema of a dump and its data are restored apart."""
    db.execute("refresh materialized view analytics.latency_by_model with no data")
    done = chatter_command("check", url=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    told = " ".join(done.stderr.split())
    assert '"latency_by_model" has not been populated' in told
    said = "select analytics.refresh(true);"
    assert said in told
    db.execute(said)
    assert chatter_command("check", url=url).returncode == 0


def test_check_finds_what_a_session_without_triggers_did(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    assert chatter_command("check", url=url).returncode == 0
    db.execute("insert into chatter.conversations (external_id) values ('c')")
    db.execute("set session_replication_role = replica")
    db.execute(
        "insert into chatter.messages (conversation_id, role, prompt_tokens, total_tokens) "
        "select id, 'user', 7, 7 from chatter.conversations"
    )
    done = chatter_command("check", url=url)
    assert done.returncode == 1
    assert "wrong" in done.stdout and "prompt_tokens" in done.stdout
    assert "To mend it: select * from chatter.recount();" in done.stdout
    for_programs = chatter_command("check", "--json", url=url)
    assert for_programs.returncode == 1
    found = json.loads(for_programs.stdout)
    assert {row["total"]: row["recounted"] for row in found["conversation_totals"]}[
        "prompt_tokens"
    ] == "7"
    db.execute("set session_replication_role = origin")
    db.execute("select * from chatter.recount()")
    db.execute("select analytics.rebuild()")
    assert chatter_command("check", url=url).returncode == 0


def test_status_shows_the_state(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("insert into chatter.conversations (external_id) values ('c')")
    db.execute(
        "insert into chatter.messages (conversation_id, role) "
        "select id, 'assistant' from chatter.conversations"
    )
    assert json.loads(chatter_command("status", "--json", url=url).stdout)["cost"] is None
    db.execute(
        "insert into chatter.messages (conversation_id, role, prompt_tokens, cost) "
        "select id, 'assistant', 1234, 0.5 from chatter.conversations"
    )
    shown = chatter_command("status", url=url)
    assert shown.returncode == 0
    assert "1,234" in shown.stdout
    assert "Model calls of unknown price: 1." in shown.stdout
    db.execute(
        "insert into chatter.workflow_executions (workflow_name, started_at) "
        "select 'w', timestamptz '2026-03-01 09:00+00' + n * interval '1 hour' "
        "from generate_series(0, 1) as n"
    )
    db.execute("insert into chatter.users (external_id) values ('ada'), ('bob'), ('eve')")
    db.execute(
        "insert into chatter.messages "
        "(conversation_id, role, prompt_tokens, completion_tokens, usage_status) "
        "select id, 'user', 5, 6, 'unknown' from chatter.conversations"
    )
    facts = json.loads(chatter_command("status", "--json", url=url).stdout)
    told: dict[str, Any] = {
        **{"schema_version": migrating.head(), "server": "yours", "hidden": []},
        **{"users": 3, "conversations": 1, "messages": 3, "model_calls": 2},
        **{"prompt_tokens": 1239, "completion_tokens": 6, "cost": "0.5"},
        **{"unpriced_calls": 1, "unknown_usage": 1},
        # A conversation, two calls with their totals, a question with its own, two runs.
        **{"running": 2, "deltas_waiting": 3, "events": 1 + 3 + 3 + 2 + 2},
        **{"worker": None, "worker_missing": True},
    }
    assert {name: facts[name] for name in told} == told
    assert datetime.fromisoformat(facts["running_since"]) == datetime(2026, 3, 1, 9, tzinfo=UTC)
    for age, missing in (("50 seconds", False), ("70 seconds", True)):
        db.execute("update analytics.state set worked_at = now() - %s::interval", [age])
        facts = json.loads(chatter_command("status", "--json", url=url).stdout)
        assert facts["worker_missing"] is missing


def test_psql_gets_its_arguments(chatter_command: Run, url: str) -> None:
    done = chatter_command("psql", "--", "-Atc", "select count(*) from chatter.messages", url=url)
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert chatter_command("psql", "--", "-c", "select nonsense", url=url).returncode == 1
    done = chatter_command("psql", "--", "-c", "\\! kill -TERM $PPID", url=url)
    assert done.returncode == 128 + signal.SIGTERM


@ONE_SERVER
def test_psql_gets_what_libpq_has_a_variable_for(chatter_command: Run, url: str) -> None:
    names = "PGTARGETSESSIONATTRS $PGREQUIREAUTH $PGCHANNELBINDING $PGCONNECT_TIMEOUT"
    asked = "target_session_attrs=read-write&require_auth=!none&channel_binding=prefer"
    done = chatter_command(
        "psql", "--", "-c", f"\\! echo ${names}", url=f"{url}?{asked}&connect_timeout=7"
    )
    assert done.stdout == "read-write !none prefer 7\n"


def test_the_demonstration(chatter_command: Run, url: str, db: psycopg.Connection[Any]) -> None:
    done = chatter_command("demo", url=url)
    assert done.returncode == 0, done.stderr
    assert "1,644 calls booked" in done.stdout
    assert "The calculate tool says: 12." in done.stdout
    assert "aider-1409" in done.stdout
    totals = db.execute("select sum(total_cost), count(*) from chatter.conversations").fetchone()
    assert totals is not None and totals[1] == 777
    again = chatter_command("demo", url=url)
    assert "0 calls booked, 1,644 were there already" in again.stdout
    assert chatter_command("check", url=url).returncode == 0


@ONE_SERVER
def test_the_demonstration_with_a_model_that_nobody_has_a_price_of(
    chatter_command: Run, url: str, provider: openai.Provider
) -> None:
    done = chatter_command(
        "demo",
        url=url,
        CHATTER_MODEL="openai:nobody-1",
        OPENAI_API_KEY="none",
        OPENAI_BASE_URL=provider.base_url,
    )
    assert done.returncode == 0, done.stderr
    (totals,) = (line for line in done.stdout.splitlines() if "totalled by triggers" in line)
    assert "6 messages" in totals and totals.endswith(", unknown cost")


def test_doctor_tells_what_would_be_unknown(chatter_command: Run) -> None:
    """It needs no database."""
    good = chatter_command("doctor", "openai:gpt-4o-mini")
    assert good.returncode == 0, good.stderr
    assert "input_mtok $0.15" in good.stdout and "Nothing of its calls is unknown" in good.stdout
    server = "http://127.0.0.1:1/v1"
    found = chatter_command("doctor", "openai:gpt-4o-mini", "--base-url", server, "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["streams_usage"] is False
    wrong = chatter_command("doctor", "nonsense")
    assert wrong.returncode == 2
    assert "provider:model" in wrong.stderr
    assert_no_traceback(wrong.stderr + found.stderr)


@ONE_SERVER
def test_a_key_of_a_user_who_may_be_new(chatter_command: Run, url: str) -> None:
    made = chatter_command("key", "ada", "--admin", url=url)
    assert (made.returncode, made.stderr) == (0, "User ada is new.\n")
    another = chatter_command("key", "ada", url=url)
    assert another.stdout.strip() != made.stdout.strip() != ""
    assert chatter_command("key", "bob", url=url).returncode == 0
    refused = chatter_command("key", "bob", "--admin", url=url)
    assert (refused.returncode, "no admin" in refused.stderr) == (2, True)
    # What a terminal would obey, and what is no markup.
    made = chatter_command("key", "\x1b]0;[red]mallory\x07", url=url)
    assert made.stderr == "User \\x1b]0;[red]mallory\\x07 is new.\n"
    told = chatter_command("unblock", "\x1b]0;[red]mallory\x07", url=url)
    assert told.stdout == "\\x1b]0;[red]mallory\\x07 was not blocked.\n"
    for argument in (["\udcff"], ["ada", "--name", "\udcff"]):  # a byte that is no UTF-8
        garbled = chatter_command("key", *argument, url=url)
        assert (garbled.returncode, "must be UTF-8" in garbled.stderr) == (2, True)
    for user, wrong in (("", "must have 1 to 500 characters"), ("x" * 501, "it has 501")):
        refused = chatter_command("key", user, url=url)
        assert (refused.returncode, wrong in refused.stderr) == (2, True)
        assert_no_traceback(refused.stderr)
    nameless = chatter_command("key", "cleo", "--name", "", url=url)
    assert (nameless.returncode, "name of a key" in nameless.stderr) == (2, True)
    assert "is new" in chatter_command("key", "cleo", url=url).stderr


def test_a_block_is_lifted(url: str, db: psycopg.Connection[Any], chatter_command: Run) -> None:
    db.execute(
        "insert into chatter.security_events (event_type, ip_address) "
        "select 'login_failure', '203.0.113.7' from generate_series(1, 10)"
    )
    lifted = chatter_command("unblock", "203.0.113.7", url=url)
    assert lifted.stdout == "203.0.113.7 may sign in again.\n"
    again = chatter_command("unblock", "203.0.113.7", url=url)
    assert again.stdout == "203.0.113.7 was not blocked.\n"
    unknown = chatter_command("unblock", "ada", url=url)
    assert unknown.returncode == 2 and "no such user" in unknown.stderr


@ONE_SERVER
def test_a_terminal_obeys_no_heading_of_a_file(
    chatter_command: Run, url: str, tmp_path: Path
) -> None:
    usage = tmp_path / "usage.csv"
    usage.write_text("conversation,role,\x1b]0;owned\x1b\\[red]c\nc,assistant,1\n")
    told = chatter_command("import", str(usage), url=url).stdout
    assert r"without a meaning here: \x1b]0;owned\x1b\[red]c." in told
