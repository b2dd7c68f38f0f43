"""`chatter adopt`: the tables of the audited backend, with everything that was wrong with them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db.errors import DatabaseUnavailable, ImportRejected, UsageError
from chatter_db.importing import BadRow, adopt
from chatter_db.importing.booking import IMPORT_LOCK
from chatter_db.importing.tables import Drift
from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.polling import wait_until_blocked

Database = psycopg.Connection[Any]

# As its ORM made them: naive times, float money, no foreign key that would hold.
TABLES = """
create table conversations (
  id varchar(36) primary key, user_id varchar(36), title varchar(255), status varchar(20),
  message_count integer default 0, total_tokens integer default 0,
  total_cost double precision default 0, created_at timestamp
);
create table messages (
  id uuid primary key, conversation_id varchar(36), role varchar(20) not null,
  content text, prompt_tokens integer, completion_tokens integer, cost double precision,
  provider_used varchar(50), model_used varchar(50), response_time_ms integer, rating integer,
  created_at timestamp
);
"""

# c1 says what is true, c2 lost updates, c3 has NULL tokens, c4 zeros, c5 no message at all.
ROWS = """
insert into conversations values
  ('c1', 'ada', 'Right', 'active', 2, 30, 0.3, '2026-01-01'),
  ('c2', 'ada', 'Lost updates', 'ACTIVE', 1, 10, 0.1, '2026-01-02'),
  ('c3', 'bob', 'No tokens', 'archived', 2, 0, 0, '2026-01-03'),
  ('c4', null, 'Zeros', 'open', 1, 0, 0, '2026-01-04'),
  ('c5', 'eve', 'Empty', null, 0, 0, 0, null);
insert into messages (id, conversation_id, role, content, prompt_tokens, completion_tokens, cost,
  provider_used, model_used, response_time_ms, created_at)
select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, c, r, t, p, o, x, 'openai', m,
  5, timestamp '2026-01-05 12:00' + n * interval '1 second'
from (values
  (1, 'c1', 'human', 'Hi', null, null, null, null),
  (2, 'c1', 'ai', 'Hello', 20, 10, 0.1 + 0.2, 'gpt-4o'),
  (3, 'c2', 'user', 'One', null, null, null, null),
  (4, 'c2', 'assistant', 'Two', 10, 10, 0.1, 'gpt-4o'),
  (5, 'c2', 'assistant', 'Three', 10, 10, 0.1, 'gpt-4o'),
  (6, 'c2', 'tool', '42', null, null, null, null),
  (7, 'c3', 'user', 'Four', null, null, null, null),
  (8, 'c3', 'assistant', 'Five', null, null, null, 'gpt-4o'),
  (9, 'c4', 'assistant', 'Six', 0, 0, 0, 'gpt-4o'),
  (10, 'gone', 'assistant', 'Seven', 5, 5, 0.05, 'gpt-4o')
) as v (n, c, r, t, p, o, x, m);
"""

TOTALS = """
select c.external_id, u.external_id, c.title, c.status, c.message_count, c.total_tokens,
  trim_scale(c.total_cost), c.unpriced_calls
from chatter.conversations as c left join chatter.users as u on u.id = c.user_id
order by c.external_id
"""


@pytest.fixture
def audited(db: Database) -> Database:
    # The user chatter's own schema would come first.
    db.execute("set search_path = public")
    db.execute(TABLES + ROWS)
    return db


def source(db: Database) -> list[Any]:
    """Everything the tables hold, and the transactions that wrote it."""
    rows: list[Any] = db.execute(
        "select xmin::text, c.* from conversations as c order by id"
    ).fetchall()
    return rows + db.execute("select xmin::text, m.* from messages as m order by id").fetchall()


def test_the_audited_backend(audited: Database, url: str, books_hold: Callable[[], None]) -> None:
    before = source(audited)
    report = adopt(url)
    found = report.found
    assert (report.booked, report.rejected, found.conversations, found.messages) == (10, 0, 5, 10)
    assert (report.new_conversations, report.new_users) == (6, 3)
    assert (found.unknown_usage, found.zero_usage, found.unpriced_calls) == (2, 1, 2)
    assert (found.orphans, found.repeated_ids, found.look_alikes) == (1, 0, 0)
    assert found.drift == (
        Drift("c2", "message_count", Decimal(1), Decimal(3)),
        Drift("c2", "total_cost", Decimal("0.1"), Decimal("0.2")),
        Drift("c2", "total_tokens", Decimal(10), Decimal(40)),
    )
    assert found.drifted == 1
    assert report.ignored_columns == ("rating",)
    assert audited.execute(TOTALS).fetchall() == [
        ("c1", "ada", "Right", "active", 2, 30, Decimal("0.3"), 0),
        ("c2", "ada", "Lost updates", "active", 3, 40, Decimal("0.2"), 0),
        ("c3", "bob", "No tokens", "archived", 2, 0, 0, 1),
        ("c4", None, "Zeros", "active", 1, 0, 0, 1),
        ("c5", "eve", "Empty", "active", 0, 0, 0, 0),
        ("gone", None, None, "active", 1, 10, Decimal("0.05"), 0),
    ]
    books_hold()
    assert source(audited) == before


def test_usage_nobody_recorded_is_unknown(audited: Database, url: str) -> None:
    adopt(url)
    rows = audited.execute(
        "select right(id::text, 2), prompt_tokens, total_tokens, cost, usage_status,"
        " created_at::text from chatter.messages where usage_status <> 'reported' order by id"
    ).fetchall()
    assert rows == [
        ("08", None, None, None, "unknown", "2026-01-05 12:00:08+00"),
        ("09", None, None, None, "unknown", "2026-01-05 12:00:09+00"),
    ]


def test_again_books_what_came_since(audited: Database, url: str) -> None:
    adopt(url)
    totals = audited.execute(TOTALS).fetchall()
    again = adopt(url)
    assert (again.booked, again.already_there, again.new_conversations, again.new_users) == (
        0, 10, 0, 0,
    )  # fmt: skip
    assert audited.execute(TOTALS).fetchall() == totals
    audited.execute(
        "insert into messages (id, conversation_id, role, prompt_tokens, completion_tokens)"
        " values (gen_random_uuid(), 'c5', 'assistant', 1, 2)"
    )
    assert (adopt(url).booked, adopt(url).booked) == (1, 0)


def test_a_dry_run_writes_nothing(audited: Database, url: str) -> None:
    dry = adopt(url, dry_run=True)
    assert (dry.booked, dry.found.drifted) == (10, 1)
    assert audited.execute("select count(*) from chatter.conversations").fetchone() == (0,)
    assert audited.execute("select count(*) from chatter.users").fetchone() == (0,)
    assert adopt(url).found == dry.found


@pytest.mark.parametrize("batch", [3, 20_000])
def test_a_dry_run_tells_what_a_run_does(audited: Database, url: str, batch: int) -> None:
    """Of new tables, of those that grew, with users and conversations that are there, and again."""

    def told(dry_run: bool) -> list[int]:
        report = adopt(url, dry_run=dry_run, batch=batch)
        return [
            report.booked, report.already_there, report.rejected,
            report.new_conversations, report.new_users,
        ]  # fmt: skip

    audited.execute("insert into chatter.users (external_id) values ('bob'), ('c4')")
    # Of the same name, but somebody else's.
    audited.execute(
        "insert into chatter.conversations (external_id, user_id) "
        "values ('c1', null), ('c4', (select id from chatter.users where external_id = 'bob')), "
        "('c3', (select id from chatter.users where external_id = 'bob'))"
    )
    audited.execute(
        "insert into messages (id, role, content) values (gen_random_uuid(), 'ai', 'x')"
    )
    assert told(dry_run=True) == told(dry_run=False) == [10, 0, 1, 5, 2]
    audited.execute(
        "insert into conversations (id, user_id) values ('c6', 'zoe'), ('c7', null);"
        "insert into messages (id, conversation_id, role) values"
        " (gen_random_uuid(), 'c7', 'user'), (gen_random_uuid(), 'c5', 'user'),"
        " (gen_random_uuid(), 'lost', 'user')"
    )
    assert told(dry_run=True) == told(dry_run=False) == [3, 10, 1, 3, 1]
    assert told(dry_run=True) == told(dry_run=False) == [0, 13, 1, 0, 0]


@pytest.mark.long
@ONE_SERVER
def test_adopting_waits_for_an_import_and_says_for_whose(audited: Database, url: str) -> None:
    told: list[str] = []
    with psycopg.connect(url) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("select pg_advisory_xact_lock(%s)", [IMPORT_LOCK])
        waiting = pool.submit(adopt, url, notice=told.append)
        try:
            wait_until_blocked(holder)
        finally:
            holder.rollback()
        assert waiting.result().booked == 10
        (said,) = told
        assert f"another import to end: of session {holder.info.backend_pid}, login" in said


def test_names_that_no_book_takes(audited: Database, url: str) -> None:
    """An empty user is nobody; what else can't be named keeps nothing else from the books."""
    audited.execute(
        "alter table conversations alter user_id type text, drop constraint conversations_pkey,"
        " alter id drop not null;"
        "update conversations set user_id = '' where id = 'c1';"
        "update conversations set user_id = repeat('x', 501) where id = 'c3';"
        "update conversations set id = '' where id = 'c4';"
        "update conversations set id = null where id = 'c5';"
        "update messages set conversation_id = '' where conversation_id = 'c4'"
    )
    told = [
        (report.booked, report.rejected, report.new_conversations, report.new_users)
        for report in (adopt(url, dry_run=True), adopt(url))
    ]
    assert told == [(7, 3, 3, 1)] * 2
    names = "select external_id, user_id is not null from chatter.conversations order by 1"
    assert audited.execute(names).fetchall() == [("c1", False), ("c2", True), ("gone", False)]
    assert [(bad.field, bad.reason) for bad in adopt(url).bad_rows] == [
        ("conversation", "is missing"),
        ("user", "501 characters are more than 500"),
        ("user", "501 characters are more than 500"),
    ]


def test_a_dry_run_waits_for_nobody(audited: Database, url: str) -> None:
    adopt(url)
    with psycopg.connect(url) as busy:
        busy.execute("select from chatter.conversations for update")
        assert adopt(url, dry_run=True).already_there == 10


@pytest.mark.parametrize(
    ("mapping", "first"),
    [({}, "2026-01-05 12:00:01+00"), ({"sent": "time"}, "2026-01-05 03:00:01+00")],
)
def test_an_adopted_conversation_is_as_it_was(
    audited: Database, url: str, mapping: dict[str, str], first: str
) -> None:
    """Times without a zone are of UTC, whatever zone the database is in; a title is cut."""
    audited.execute(
        f"alter database {audited.info.dbname} set timezone = 'Europe/Berlin';"
        "alter table conversations alter title type text;"
        "update conversations set title = repeat('x', 3000) where id = 'c2';"
        "alter table messages add sent timestamptz;"
        "update messages set sent = created_at at time zone 'Asia/Tokyo'"
    )
    adopt(url, mapping=mapping)
    told = audited.execute(
        "select external_id, length(title), created_at::text from chatter.conversations"
        " where external_id in ('c1', 'c2') order by 1"
    )
    assert told.fetchall() == [
        ("c1", 5, "2026-01-01 00:00:00+00"),
        ("c2", 2000, "2026-01-02 00:00:00+00"),
    ]
    moment = audited.execute("select min(created_at)::text from chatter.messages").fetchone()
    assert moment == (first,)


def test_rows_that_say_more_than_their_neighbours(audited: Database, url: str) -> None:
    """Roles as frameworks call them, a price without tokens, an owner without a conversation."""
    audited.execute(
        "alter table messages add user_id text;"
        "update messages set role = 'Bot' where content = 'Hello';"
        "update messages set role = 'function' where content = '42';"
        "update messages set cost = 0.5 where content = 'Six';"
        "update messages set user_id = 'zoe' where content in ('Seven', 'Hello');"
        "update conversations set total_tokens = null where id = 'c1'"
    )
    report = adopt(url)
    assert Drift("c1", "total_tokens", None, Decimal(30)) in report.found.drift
    rows = audited.execute(
        "select m.content, m.role, m.kind, m.total_tokens, trim_scale(m.cost), u.external_id"
        " from chatter.messages as m join chatter.conversations as c on c.id = m.conversation_id"
        " left join chatter.users as u on u.id = c.user_id"
        " where m.content in ('Hello', '42', 'Six', 'Seven') order by m.content"
    ).fetchall()
    assert rows == [
        ("42", "tool", "step", None, None, "ada"),
        ("Hello", "assistant", "turn", 30, Decimal("0.3"), "ada"),
        ("Seven", "assistant", "turn", 10, Decimal("0.05"), "zoe"),
        ("Six", "assistant", "turn", None, Decimal("0.5"), None),
    ]


@pytest.mark.parametrize("batch", [2, 20_000])
def test_other_names_and_numbers_for_ids(db: Database, url: str, batch: int) -> None:
    db.execute(
        """
        create schema app;
        create table app.threads (no bigint, owner text, tokens_spent bigint);
        create table app.utterances (
          no bigint, thread bigint, role text, content text, tokens_in integer, state text,
          created_at timestamptz
        );
        insert into app.threads values (1, 'ada', 999);
        insert into app.utterances values
          (1, 1, 'assistant', 'Hi', 5, 'sent', '2026-01-01 12:00+02'),
          (1, 1, 'assistant', 'Hi', 5, 'sent', '2026-01-01 12:00+02'),
          (2, 1, 'assistant', 'Hi', 5, 'sent', '2026-01-01 12:00+02'),
          (3, 1, 'assistant', 'Bad', -5, 'sent', '2026-01-01 12:00+02'),
          (4, null, 'assistant', 'Whose?', 5, 'sent', '2026-01-01 12:00+02'),
          (null, 1, 'assistant', 'Which?', 5, 'sent', '2026-01-01 12:00+02');
        """
    )
    report = adopt(
        url,
        conversations="app.threads",
        messages="app.utterances",
        batch=batch,
        mapping={
            "no": "id",
            "thread": "conversation",
            "tokens_in": "prompt_tokens",
            "conversations.no": "id",
            "conversations.owner": "user_id",
            "conversations.tokens_spent": "total_tokens",
        },
    )
    assert (report.booked, report.rejected) == (2, 3)
    assert report.bad_rows == (
        BadRow(3, "prompt_tokens", "-5 is below 0"),
        BadRow(None, "id", "is missing"),
        BadRow(4, "conversation", "is missing"),
    )
    assert (report.found.repeated_ids, report.found.look_alikes) == (1, 2)
    assert db.execute(TOTALS).fetchall() == [("1", "ada", None, "active", 2, 10, 0, 2)]


def test_tables_that_say_little(db: Database, url: str) -> None:
    db.execute(
        """
        create schema app;
        create table app.talks (id integer);
        create table app.lines (
          id integer, conversation integer, kind text, response_time_ms double precision
        );
        insert into app.talks values (1);
        insert into app.lines values (1, 1, 'turn', null), (2, 1, 'step', 0.1);
        """
    )
    report = adopt(url, conversations="app.talks", messages="app.lines")
    found = report.found
    assert (report.booked, found.unknown_usage, found.unpriced_calls) == (2, 2, 2)
    assert (found.zero_usage, found.repeated_ids, found.look_alikes, found.drifted) == (0, 0, 0, 0)
    rows = db.execute("select kind, role, response_time_ms from chatter.messages order by kind")
    assert rows.fetchall() == [("step", "assistant", 0.1), ("turn", "assistant", None)]


@ONE_SERVER
def test_what_postgres_refuses(audited: Database, url: str) -> None:
    """What was booked before stays, and is found booked next time."""
    audited.execute("alter table chatter.messages add constraint rule check (role <> 'tool')")
    with pytest.raises(ImportRejected, match=r'violates check constraint "rule"\. What was booked'):
        adopt(url, batch=1)
    audited.execute("alter table chatter.messages drop constraint rule")
    report = adopt(url)
    assert (report.booked, report.already_there) == (5, 5)


@ONE_SERVER
def test_a_connection_that_is_lost(audited: Database, url: str) -> None:
    def lose(*_: int) -> None:
        audited.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )

    with pytest.raises(DatabaseUnavailable, match=r"while adopting\. What was booked"):
        adopt(url, batch=3, progress=lose)
    report = adopt(url)
    assert (report.booked, report.already_there) == (7, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"messages": "nowhere"}, "There is no table nowhere"),
        ({"mapping": {"conversations.x": "id"}}, "has no column x"),
        ({"mapping": {"conversations.id": "nonsense"}}, "Can't map conversations.id to nonsense"),
        ({"mapping": {"x": "cost"}}, "has no column x"),
        ({"ignored": ["x"]}, "has no column x"),
        ({"batch": 0}, "at least 1 row"),
        ({"ignored": ["conversation_id"]}, "No column means conversation"),
        ({"conversations": "chatter.alembic_version"}, "alembic_version has no column id; name it"),
        ({"ignored": ["id"]}, "The table public.messages has no column id"),
    ],
)
@ONE_SERVER
def test_wrong_use(audited: Database, url: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        adopt(url, **arguments)


def test_a_conversation_of_the_year_1(audited: Database, url: str) -> None:
    """What some languages write for no time at all."""
    audited.execute("update conversations set created_at = '0001-01-01' where id = 'c1'")
    begin = scalar(audited, "select extract(epoch from chatter.clock())")
    adopt(url)
    found = scalar(
        audited,
        "select extract(epoch from created_at) from chatter.conversations where external_id = 'c1'",
    )
    assert found >= begin


def scalar(db: Database, statement: str) -> int:
    row = db.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.long
@ONE_SERVER
def test_killed_half_way_beside_a_busy_source(
    audited: Database,
    url: str,
    tmp_path: Path,
    books_hold: Callable[[], None],
    chatter_command: Run,
) -> None:
    audited.execute(
        """
        insert into conversations select 'k' || n, 'ada', null, 'active', 7, 7, 7, now()
        from generate_series(1, 300) as n;
        insert into messages (id, conversation_id, role, prompt_tokens, completion_tokens, cost)
        select gen_random_uuid(), 'k' || n % 300 + 1, 'assistant', n % 90 + 1, 1, 0.001
        from generate_series(1, 6000) as n;
        """
    )
    there = "select count(*) from chatter.messages"
    adopting = subprocess.Popen(
        [Path(sys.executable).with_name("chatter"), "adopt", "--batch", "100"],
        env={**os.environ, "CHATTER_DATABASE_URL": url, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not scalar(audited, there):
        assert adopting.poll() is None, adopting.communicate()
        assert time.monotonic() < deadline
        # The backend goes on, behind the snapshot.
        audited.execute(
            "insert into messages (id, conversation_id, role, prompt_tokens, completion_tokens)"
            " values (gen_random_uuid(), 'c1', 'assistant', 1, 1)"
        )
    adopting.kill()
    adopting.communicate()
    booked = scalar(audited, there)
    assert 0 < booked < 6000

    done = chatter_command("adopt", "--json", url=url)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["already_there"] >= booked
    assert scalar(audited, there) == scalar(audited, "select count(*) from messages")
    assert report["found"]["drifted"] >= 300
    books_hold()
    again = adopt(url)
    assert (again.booked, again.already_there) == (0, scalar(audited, there))
    assert replace(again.found, drift=()) == replace(adopt(url, dry_run=True).found, drift=())


@ONE_SERVER
def test_the_table_of_the_command(audited: Database, url: str, chatter_command: Run) -> None:
    done = chatter_command("adopt", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("Adopted", "replies of unknown usage", "Drifted", "c2", "rating"):
        assert said in done.stdout
    wrong = chatter_command("adopt", "--messages", "nowhere", url=url)
    assert wrong.returncode == 2
    assert "There is no table nowhere" in wrong.stderr


@ONE_SERVER
def test_a_password_stays_out_of_the_list_of_processes(
    audited: Database, url: str, chatter_command: Run
) -> None:

    def adopting(*arguments: str, **environment: str) -> tuple[int, str]:
        done = chatter_command("adopt", "--dry-run", *arguments, url=url, **environment)
        return done.returncode, " ".join(done.stderr.split())

    assert adopting("--from-env", "OLD_BOOKS", OLD_BOOKS=url) == (0, "")
    bare = f"postgresql://{audited.info.user}@{audited.info.host}:{audited.info.port}"
    password = {"PGPASSWORD": audited.info.password}
    assert adopting("--from", f"{bare}/{audited.info.dbname}", **password) == (0, "")

    code, said = adopting("--from", url)
    assert (code, "Whoever lists processes sees the password in --from." in said) == (0, True)
    assert audited.info.password not in said
    code, said = adopting("--from-env", "OLD_BOOKS")
    assert (code, "variable OLD_BOOKS (--from-env) is not set" in said) == (2, True)
    code, said = adopting("--from", url, "--from-env", "OLD_BOOKS", OLD_BOOKS=url)
    assert (code, "not both" in said) == (2, True)
