"""A real usage trace, to the last digit.

The figures ship with the package; the original with its expected sums is looked
for in ../shared/data, beside the repository.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db.importing import import_file

ROOT = Path(__file__).parents[2]
TRACE = ROOT / "chatter_db" / "demo" / "aider_trace.csv"
SHARED = ROOT.parent / "shared" / "data"
ORIGINAL = SHARED / "usage_trace.jsonl"
EXPECTED = SHARED / "usage_trace.expected.json"

needs_original = pytest.mark.skipif(
    not (ORIGINAL.exists() and EXPECTED.exists()),
    reason=f"the original trace and its sums are not in {SHARED}",
)

Db = psycopg.Connection[Any]

BY_MODEL = """
    select model_used, count(*), sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint,
      sum(cost)
    from chatter.messages group by model_used
"""
BY_CONVERSATION = """
    select external_id, message_count, prompt_tokens, completion_tokens, total_cost
    from chatter.conversations
"""


def sums(db: Db, query: str) -> dict[str, tuple[int, int, int, Decimal]]:
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in db.execute(query).fetchall()}


def trace_rows() -> list[dict[str, str]]:
    with TRACE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_trace_sums_up(url: str, db: Db, books_hold: Callable[[], None]) -> None:
    report = import_file(url, TRACE)
    assert (report.booked, report.new_conversations, report.new_users) == (1644, 776, 4)
    assert report.cost == Decimal("66.629633285999407711297")
    totals = db.execute(
        "select sum(message_count), sum(prompt_tokens), sum(completion_tokens), sum(total_cost) "
        "from chatter.conversations"
    ).fetchone()
    assert totals == (1644, 23876329, 958804, Decimal("66.629633285999407711297"))
    by_model: dict[str, list[Any]] = defaultdict(lambda: [0, 0, 0, Decimal(0)])
    for row in trace_rows():
        entry = by_model[row["model"]]
        entry[0] += 1
        entry[1] += int(row["prompt_tokens"])
        entry[2] += int(row["completion_tokens"])
        entry[3] += Decimal(row["cost"])
    assert sums(db, BY_MODEL) == {model: tuple(entry) for model, entry in by_model.items()}
    books_hold()


@needs_original
def test_the_original_equals_its_expected_sums(url: str, db: Db) -> None:
    import_file(url, ORIGINAL)
    expected = json.loads(EXPECTED.read_text("utf-8"))
    for query, key in ((BY_MODEL, "by_model"), (BY_CONVERSATION, "by_conversation")):
        wanted = {
            name: (
                entry["messages"],
                entry["prompt_tokens"],
                entry["completion_tokens"],
                Decimal(entry["cost_usd"]),
            )
            for name, entry in expected[key].items()
        }
        assert len(wanted) > 60
        assert sums(db, query) == wanted
    total = db.execute("select sum(cost)::text from chatter.messages").fetchone()
    assert total == (expected["total"]["cost_usd"],)


@needs_original
def test_the_packaged_figures_are_the_originals() -> None:
    with ORIGINAL.open(encoding="utf-8") as file:
        originals = [json.loads(line, parse_float=str, parse_int=str) for line in file]
    rows = trace_rows()
    assert len(rows) == len(originals)
    for row, original in zip(rows, originals, strict=True):
        assert row == {name: original[name] or "" for name in row}


def test_one_by_one_the_total_is_the_clients_after_every_row(db: Db) -> None:
    """The client kept its own running total: an oracle for ours, row by row."""
    ids: dict[str, Any] = {}
    # What the client had counted before the trace begins: three conversations
    # were under way.
    before: dict[str, Decimal] = {}
    for row in trace_rows():
        name = row["conversation_id"]
        if name not in ids:
            before[name] = Decimal(row["session_total_cost"]) - Decimal(row["cost"])
            made = db.execute(
                "insert into chatter.conversations (external_id) values (%s) returning id", [name]
            ).fetchone()
            ids[name] = made and made[0]
        db.execute(
            "insert into chatter.messages (conversation_id, role, model_used, prompt_tokens, "
            "completion_tokens, cost) values (%s, 'assistant', %s, %s, %s, %s)",
            [
                ids[name],
                row["model"],
                row["prompt_tokens"],
                row["completion_tokens"],
                Decimal(row["cost"]),
            ],
        )
        total = db.execute(
            "select total_cost from chatter.conversations where id = %s", [ids[name]]
        ).fetchone()
        assert total is not None
        clients = Decimal(row["session_total_cost"])
        assert abs(before[name] + total[0] - clients) <= Decimal("1e-9")
    assert {name for name, cost in before.items() if cost > Decimal("1e-9")} == {
        "aider-1496",
        "aider-1654",
        "aider-1712",
    }
