"""The verdict: the books against what is known, and every reader against the books."""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

from chatter_db import database
from chatter_db.queries import checks
from tests.chaos.known import MODEL, Answers, Known, cost
from tests.events.whole_path import Ledger, Reader, Verdict

LATER = "30 hours"
"""When whatever a killed process left running has to be swept."""


@dataclass
class Books:
    """What a campaign left in the books."""

    messages: dict[UUID, UUID]
    """Conversation by message."""
    calls: dict[int, list["Call"]]
    """Answered calls of the model, by their prompt tokens."""
    runs: dict[UUID, tuple[str, int, int, Decimal]]
    """Status, tokens and cost of executions."""
    written: dict[UUID, tuple[int, int, Decimal]]
    """What writers of SQL wrote: tokens and cost."""
    repeated: list[str]
    """Texts of turns, all of them unique, that are there more than once."""
    running: int
    """Executions that the sweep left running."""
    swept: int


@dataclass(frozen=True)
class Call:
    """A model call's row."""

    execution: UUID
    completion_tokens: int
    cost: Decimal
    content: str


@dataclass
class Findings:
    """What is wrong, each a line; all must be empty."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Figures and ends that are not what was acknowledged."""
    drift: list[str] = field(default_factory=list)
    """Rows that checks of the books return."""

    def all(self) -> list[str]:
        return [f"{kind}: {what}" for kind, found in vars(self).items() for what in found]


def read_books(url: str) -> Books:
    """Sweeps what was left running, and reads everything."""
    with psycopg.connect(url) as db:
        db.execute(
            "select set_config('chatter.frozen_clock',"
            " (clock_timestamp() + %s::interval)::text, true)",
            [LATER],
        )
        swept = _one(db, "select chatter.sweep_executions()")
        db.commit()
        calls: dict[int, list[Call]] = {}
        for prompt, *call in db.execute(
            "select prompt_tokens, execution_id, completion_tokens, cost, coalesce(content, '')"
            " from chatter.messages where model_used = %s and prompt_tokens is not null",
            [MODEL],
        ):
            calls.setdefault(prompt, []).append(Call(*call))
        runs = db.execute(
            "select id, status, prompt_tokens, completion_tokens, total_cost"
            " from chatter.workflow_executions"
        )
        written = db.execute(
            "select id, prompt_tokens, completion_tokens, cost from chatter.messages"
            " where provider_used = 'direct'"
        )
        return Books(
            messages=dict(
                db.execute("select id, conversation_id from chatter.messages").fetchall()
            ),
            calls=calls,
            runs={id_: (status, *sums) for id_, status, *sums in runs},
            written={id_: tuple(figures) for id_, *figures in written},
            repeated=[
                text
                for (text,) in db.execute(
                    "select content from chatter.messages where kind = 'turn'"
                    " and content is not null group by content having count(*) > 1"
                )
            ],
            running=_one(
                db, "select count(*) from chatter.workflow_executions where status = 'running'"
            ),
            swept=swept,
        )


def _one(db: psycopg.Connection[Any], sql: str) -> Any:
    row = db.execute(sql).fetchone()
    assert row is not None
    return row[0]


def judge(url: str, books: Books, known: Known, answers: Answers) -> Findings:
    """Compares the books with what is known of them."""
    found = Findings()
    _judge_answers(found, books, known)
    _judge_calls(found, books, answers)
    _judge_written(found, books, known)
    found.duplicated += [f"the turn {text!r}" for text in books.repeated]
    if books.running:
        found.wrong.append(f"{books.running} executions run on after the sweep of {LATER} later")
    engine = database.sync_engine(url)
    with engine.connect() as connection:
        for check in checks():
            found.drift += [f"{check.title} {row}" for row in connection.execute(check.statement)]
    engine.dispose()
    return found


def _judge_answers(found: Findings, books: Books, known: Known) -> None:
    """Every answer that somebody was given is there, with its tokens and its cost."""
    calls_of: dict[UUID, set[int]] = {}
    for prompt, rows in books.calls.items():
        for row in rows:
            calls_of.setdefault(row.execution, set()).add(prompt)
    for given in known.answered:
        calls = calls_of.get(given.execution, set())
        told = calls if given.calls is None else set(given.calls)
        texts = {row.content for prompt in calls for row in books.calls[prompt]}
        if given.execution not in books.runs or given.answer not in texts or told - calls:
            found.lost.append(str(given))
            continue
        expected = ("completed", given.prompt_tokens, given.completion_tokens, given.cost)
        if calls != told or books.runs[given.execution] != expected:
            found.wrong.append(f"{books.runs[given.execution]}, calls {calls}: {given}")


def _judge_calls(found: Findings, books: Books, answers: Answers) -> None:
    """Every call that is there was billed, is there once, and has its tokens and its cost."""
    for prompt, rows in books.calls.items():
        completion = answers.completion_tokens.get(prompt)
        if completion is None:
            found.invented.append(f"a call of {prompt} prompt tokens")
            continue
        found.duplicated += [f"the call of {prompt} prompt tokens"] * (len(rows) - 1)
        for row in rows:
            if (row.completion_tokens, row.cost) != (completion, cost(prompt, completion)):
                found.wrong.append(f"the call of {prompt} prompt tokens is {row}")


def _judge_written(found: Findings, books: Books, known: Known) -> None:
    """What writers of SQL committed is there, what they rolled back isn't."""
    unknown = [row for rows in known.unknown for row in rows]
    for row in [*known.committed.values(), *unknown]:
        figures = (row.prompt_tokens, row.completion_tokens, row.cost)
        if row.id in books.written:
            if books.written[row.id] != figures or books.messages[row.id] != row.conversation:
                found.wrong.append(f"{books.written[row.id]}: {row}")
        elif row.id in known.committed:
            found.lost.append(str(row))
    for rows in known.unknown:
        there = sum(row.id in books.written for row in rows)
        if there not in (0, len(rows)):
            found.wrong.append(f"{there} of the {len(rows)} messages of one transaction")
    never = known.rolled_back & books.written.keys()
    found.invented += [f"the message {id_} was rolled back" for id_ in never]
    told = {row.id for row in unknown} | known.committed.keys()
    unheard = books.written.keys() - told - never
    found.invented += [f"the message {id_} is nobody's" for id_ in unheard]


def judge_readers(books: Books, readers: list[Reader]) -> list[Verdict]:
    """Every reader was told of every message that is there, once, and of no other."""
    ledger = Ledger(committed={id_: (where, 0) for id_, where in books.messages.items()})
    return [reader.verdict(ledger) for reader in readers]


def has_all(books: Books, reader: Reader) -> bool:
    return books.messages.keys() <= Counter(reader.messages).keys()
