"""The options of `chatter report`."""

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest

from chatter_db.analytics import reports
from tests.conftest import ONE_SERVER
from tests.forked import Run

pytestmark = ONE_SERVER


@pytest.fixture
def ada(db: psycopg.Connection[Any]) -> UUID:
    """The id here of a user with calls at two hours of a day; another one has a call, too."""
    ids = {}
    for name, hours in (("ada", (1, 1, 2)), ("bob", (3,))):
        row = db.execute(
            "insert into chatter.users (external_id) values (%s) returning id", [name]
        ).fetchone()
        assert row is not None
        ids[name] = row[0]
        db.execute("insert into chatter.conversations (user_id) values (%s)", row)
        for hour in hours:
            db.execute(
                "insert into chatter.messages (conversation_id, role, model_used, created_at) "
                "select id, 'assistant', 'gpt-4o', "
                "timestamptz '2026-01-31 00:30+00' + %s * interval '1 hour' "
                "from chatter.conversations where user_id = %s",
                [hour, row[0]],
            )
    found: UUID = ids["ada"]
    return found


def calls(done: Any) -> list[int]:
    assert done.returncode == 0, done.stderr
    return [row["calls"] for row in json.loads(done.stdout)["rows"]]


def test_what_a_user_used(chatter_command: Run, url: str, ada: UUID) -> None:
    for user in ("ada", str(ada), str(ada).upper()):
        done = chatter_command("report", "usage-of-user", "--user", user, "--json", url=url)
        assert calls(done) == [3], user
    period = ["--since", "2026-02-01"]
    done = chatter_command("report", "usage_of_user", "--user", "ada", *period, "--json", url=url)
    assert calls(done) == []


@pytest.mark.usefixtures("url")
def test_the_list_has_the_form_that_is_asked_for(chatter_command: Run) -> None:
    listed = json.loads(chatter_command("report", "--json").stdout)["reports"]
    assert {"report": "cost_by_day", "definition": reports()["cost_by_day"].title} in listed
    lines = chatter_command("report", "--csv").stdout.splitlines()
    assert lines[0] == "report,definition"
    assert len(lines) == len(listed) + 1 == len(reports()) + 1
    both = chatter_command("report", "--json", "--csv")
    assert (both.returncode, both.stdout) == (2, "")
    assert "--json or --csv" in both.stderr


@pytest.mark.usefixtures("ada")
def test_a_line_for_each_step(chatter_command: Run, url: str) -> None:
    for options, expected in (
        (["--step", "hour"], [2, 1, 1]),
        (["--step", "day"], [4]),
        ([], [4]),
    ):
        done = chatter_command("report", "usage_by_time", *options, "--json", url=url)
        assert calls(done) == expected, options


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["usage_of_user"], "usage_of_user needs --user: your own id of the user."),
        (["usage_of_user", "--user", "eve"], "No user 'eve' in the books."),
        (["usage_of_user", "--user", "\udcff"], "No user '\\udcff' in the books."),
        (
            ["cost_by_day", "--user", "ada"],
            "cost_by_day has no --user; its options are --since, --until, --time-zone.",
        ),
        (["usage_of_user", "--user", "ada", "--step", "day"], "usage_of_user has no --step"),
        (["running", "--limit", "3"], "running has no --limit; its options are none."),
        (["usage_by_time", "--step", "week"], "'week' is not one of 'hour', 'day'"),
        (["nonsense", "--step", "day"], "No report 'nonsense'; there are active_users"),
    ],
)
def test_what_a_report_cant_be_asked(
    chatter_command: Run, url: str, arguments: list[str], said: str
) -> None:
    done = chatter_command("report", *arguments, url=url)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
