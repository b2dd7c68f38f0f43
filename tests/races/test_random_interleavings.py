"""Eight sessions write at random: totals hold in every snapshot, and nothing is lost.

CHATTER_RACES_EXAMPLES sets how many random schedules are tried (default 8); a
thousand take some minutes.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_never
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from psycopg import IsolationLevel, errors, sql

from tests.sql.books import Books

EXAMPLES = int(os.environ.get("CHATTER_RACES_EXAMPLES", "8"))
SESSIONS = 8
CONVERSATIONS = 4
# A victim of a deadlock is one of eight; that it is so every time means a livelock.
TRIES = 100

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)

schedule_settings = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    # The same schedule runs differently each time, so that shrinking it finds nothing.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Insertion = Literal["insert", "bulk insert", "copy", "retried insert", "tool call"]
Change = Literal["upsert", "update", "bulk update", "redate", "move", "move all", "delete", "merge"]

INSERTIONS: tuple[Insertion, ...] = ("insert", "bulk insert", "copy", "retried insert", "tool call")
CHANGES: tuple[Change, ...] = (
    "upsert",
    "update",
    "bulk update",
    "redate",
    "move",
    "move all",
    "delete",
    "merge",
)


@dataclass(frozen=True)
class Step:
    """One statement: which, on which two of the conversations, and with what figures."""

    kind: Insertion | Change
    here: int
    there: int
    in_run: bool
    tokens: int
    pick: int
    minute: int


@dataclass(frozen=True)
class Transaction:
    """Steps that commit or roll back together; `undone` ones go back to a savepoint."""

    steps: tuple[Step, ...]
    undone: tuple[Step, ...]
    commits: bool


def steps(kinds: tuple[Insertion | Change, ...]) -> st.SearchStrategy[Step]:
    conversation = st.integers(0, CONVERSATIONS - 1)
    return st.builds(
        Step,
        kind=st.sampled_from(kinds),
        here=conversation,
        there=conversation,
        in_run=st.booleans(),
        tokens=st.integers(0, 1000),
        pick=st.integers(0, 5),
        minute=st.integers(0, 60),
    )


SINGLE = steps(INSERTIONS).map(lambda step: Transaction((step,), (), commits=True))
TRANSACTION = st.builds(
    Transaction,
    steps=st.lists(steps((*INSERTIONS, *CHANGES)), min_size=1, max_size=4).map(tuple),
    undone=st.lists(steps((*INSERTIONS, *CHANGES)), max_size=2).map(tuple),
    commits=st.sampled_from([True, True, True, False]),
)
SCHEDULE = st.lists(
    st.lists(SINGLE | TRANSACTION, min_size=4, max_size=8), min_size=SESSIONS, max_size=SESSIONS
)


# One of the messages that are in a conversation now, if it has that many.
PICKED = sql.SQL(
    "(select p.id from chatter.messages as p where p.conversation_id = %(here)s "
    "order by p.id offset %(pick)s limit 1)"
)
UPSERT = sql.SQL(
    "insert into chatter.messages (id, conversation_id, role, prompt_tokens) "
    "select coalesce({}, chatter.uuid7()), %(there)s, 'assistant', %(tokens)s "
    "union all select chatter.uuid7(), %(here)s, 'user', 1 "
    "on conflict (id) do update set prompt_tokens = excluded.prompt_tokens"
).format(PICKED)
UPDATE = sql.SQL(
    "update chatter.messages set prompt_tokens = %(tokens)s, kind = 'step', cost = 1.5, "
    "execution_id = %(run)s where id = {}"
).format(PICKED)
REDATE = sql.SQL("update chatter.messages set created_at = %(at)s where id = {}").format(PICKED)
MOVE = sql.SQL("update chatter.messages set conversation_id = %(there)s where id = {}").format(
    PICKED
)
DELETE = sql.SQL("delete from chatter.messages where id = {}").format(PICKED)
MERGE = sql.SQL(
    "merge into chatter.messages as m "
    "using (values ({}, 0), (chatter.uuid7(), 1)) as v (id, part) on m.id = v.id "
    "when matched then update set completion_tokens = %(tokens)s, role = 'user' "
    "when not matched and v.part = 1 then "
    "insert (id, conversation_id, role) values (v.id, %(there)s, 'assistant')"
).format(PICKED)


class Writer(Books):
    """The books, written step by step."""

    def __init__(
        self,
        connection: psycopg.Connection[tuple[Any, ...]],
        parents: list[UUID],
        runs: list[UUID],
    ) -> None:
        super().__init__(connection)
        self.parents = parents
        self.runs = runs

    def run(self, transaction: Transaction, *, lock_first: bool) -> None:
        """Runs the transaction, a lone insertion as the single statement that it is."""
        if lock_first and _is_single_insertion(transaction):
            self.step(transaction.steps[0])
            return
        with self.connection.transaction(force_rollback=not transaction.commits):
            if lock_first:
                touched = {
                    index
                    for step in (*transaction.undone, *transaction.steps)
                    for index in (step.here, step.there)
                }
                self.lock(*(self.parents[index] for index in touched))
            if transaction.undone:
                with self.connection.transaction(force_rollback=True):
                    for step in transaction.undone:
                        self.step(step)
            for step in transaction.steps:
                self.step(step)

    def step(self, step: Step) -> None:
        here, there = self.parents[step.here], self.parents[step.there]
        run = self.runs[step.here] if step.in_run else None
        created_at = NOON + timedelta(minutes=step.minute)
        row = {
            "conversation_id": here,
            "execution_id": run,
            "prompt_tokens": step.tokens,
            "cost": None if step.tokens % 3 == 0 else f"0.{step.tokens}",
            "kind": "turn" if step.tokens % 2 else "step",
            "created_at": created_at,
        }
        other_row = {**row, "conversation_id": there, "execution_id": None}
        values = {
            "here": here,
            "there": there,
            "run": run,
            "tokens": step.tokens,
            "pick": step.pick,
            "at": created_at,
        }
        execute = self.connection.execute
        match step.kind:
            case "insert":
                self.messages([row])
            case "bulk insert":
                self.messages([row, other_row, row])
            case "copy":
                statement = (
                    "copy chatter.messages (conversation_id, role, completion_tokens) from stdin"
                )
                with self.connection.cursor().copy(statement) as copy:
                    copy.write_row((there, "assistant", step.tokens))
                    copy.write_row((here, "assistant", step.tokens))
            case "retried insert":
                # Sent twice by the same writer, as after an answer that got lost.
                message = self.value("select chatter.uuid7()")
                for _ in range(2):
                    execute(
                        "insert into chatter.messages (id, conversation_id, role) "
                        "values (%s, %s, 'assistant') on conflict (id) do nothing",
                        [message, here],
                    )
            case "tool call":
                self.tool_call(self.runs[step.here])
            case "upsert":
                execute(UPSERT, values)
            case "update":
                execute(UPDATE, values)
            case "bulk update":
                execute(
                    "update chatter.messages set completion_tokens = %(tokens)s "
                    "where conversation_id in (%(here)s, %(there)s)",
                    values,
                )
            case "redate":
                execute(REDATE, values)
            case "move":
                execute(MOVE, values)
            case "move all":
                execute(
                    "update chatter.messages set conversation_id = %(there)s, execution_id = null "
                    "where conversation_id = %(here)s",
                    values,
                )
            case "delete":
                execute(DELETE, values)
            case "merge":
                execute(MERGE, values)
            case _:
                assert_never(step.kind)


def _is_single_insertion(transaction: Transaction) -> bool:
    (first, *more), undone = transaction.steps, transaction.undone
    return transaction.commits and not more and not undone and first.kind in INSERTIONS


@contextmanager
def watched(url: str) -> Iterator[None]:
    """Runs the checks in snapshot after snapshot while the block runs; none may find a thing."""
    over = threading.Event()

    def watch() -> list[dict[str, Any]]:
        found = []
        with psycopg.connect(url) as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            while True:
                last = over.is_set()
                findings = Books(connection).findings()
                connection.commit()
                if findings:
                    found.append(findings)
                if last:
                    return found

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            over.set()
            found = watching.result(60)
    assert found == []


def play(
    connections: list[psycopg.Connection[tuple[Any, ...]]],
    schedule: list[list[Transaction]],
    *,
    lock_first: bool,
) -> int:
    """Runs each list of transactions in a connection of its own; the number of deadlocks."""
    setup = Books(connections[0])
    conversations = setup.conversations(CONVERSATIONS)
    runs = [setup.execution(conversation) for conversation in conversations]
    barrier = threading.Barrier(len(schedule))

    def write(
        connection: psycopg.Connection[tuple[Any, ...]], transactions: list[Transaction]
    ) -> int:
        writer = Writer(connection, conversations, runs)
        deadlocks = 0
        barrier.wait()
        for transaction in transactions:
            for _ in range(TRIES):
                try:
                    writer.run(transaction, lock_first=lock_first)
                    break
                except errors.DeadlockDetected:
                    deadlocks += 1
            else:
                raise AssertionError(f"always the victim: {transaction}")
        return deadlocks

    with ThreadPoolExecutor(len(schedule)) as pool:
        return sum(pool.map(write, connections, schedule))


@pytest.fixture
def connections(url: str) -> Iterator[list[psycopg.Connection[tuple[Any, ...]]]]:
    # Deadlocks are looked for after a second by default; here they are part of the plan.
    options = "-c deadlock_timeout=10ms -c statement_timeout=30s"
    opened = [psycopg.connect(url, autocommit=True, options=options) for _ in range(SESSIONS)]
    yield opened
    for connection in opened:
        connection.close()


@schedule_settings
@given(schedule=SCHEDULE)
def test_who_keeps_the_rules_never_deadlocks(
    url: str,
    connections: list[psycopg.Connection[tuple[Any, ...]]],
    schedule: list[list[Transaction]],
) -> None:
    with watched(url):
        deadlocks = play(connections, schedule, lock_first=True)
    assert deadlocks == 0
    assert Books(connections[0]).recount() == set()


@schedule_settings
@given(schedule=SCHEDULE)
def test_who_breaks_them_may_deadlock_and_loses_nothing(
    url: str,
    connections: list[psycopg.Connection[tuple[Any, ...]]],
    schedule: list[list[Transaction]],
) -> None:
    with watched(url):
        deadlocks = play(connections, schedule, lock_first=False)
    event("deadlocks" if deadlocks else "no deadlock")
    assert Books(connections[0]).recount() == set()
