"""Tokens that a row has in its provider's own block, as the recorder reads it."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from chatter_db.database import sync_engine
from chatter_db.importing import import_file
from chatter_db.repricing import Selection, reprice
from tests.conftest import ONE_SERVER
from tests.forked import Run

from .test_importing import Db, jsonl

# Prompt, completion, total, cache read, cache write and reasoning tokens.
BLOCKS: list[tuple[dict[str, Any], tuple[int | None, ...]]] = [
    (
        {"usage": {"input_tokens": 100, "output_tokens": 20}},
        (100, 20, 120, None, None, None),
    ),
    (
        {
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 5},
            }
        },
        (100, 20, 120, 40, None, 5),
    ),
    (
        {
            "provider": "anthropic",
            "usage": {
                "input_tokens": 10,
                "output_tokens": 20,
                "cache_read_input_tokens": 70,
                "cache_creation_input_tokens": 20,
            },
        },
        (100, 20, 120, 70, 20, None),
    ),
    (
        {
            "usageMetadata": {
                "promptTokenCount": 100,
                "candidatesTokenCount": 15,
                "thoughtsTokenCount": 5,
                "totalTokenCount": 120,
            }
        },
        (100, 20, 120, 0, None, 5),
    ),
    (
        {"usage": None, "usage_metadata": '{"prompt_tokens": "100", "completion_tokens": 20.0}'},
        (100, 20, 120, None, None, None),
    ),
    # xAI counts reasoning beside the completion, and so is asked by name.
    (
        {
            "provider": "xai",
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
        },
        (100, 25, 125, None, None, 5),
    ),
    # What a column says comes first.
    (
        {"usage": {"input_tokens": 100, "output_tokens": 20}, "prompt_tokens": 7},
        (7, None, 7, None, None, None),
    ),
    (
        {"usage": {"input_tokens": 100, "output_tokens": 20}, "reasoning_tokens": 3},
        (100, 20, 120, None, None, 3),
    ),
    (
        {
            "usage": {"input_tokens": 100, "output_tokens": 20, "cache_read_input_tokens": 40},
            "provider": "anthropic",
            "cache_read_tokens": 30,
        },
        (140, 20, 160, 30, 0, None),
    ),
    ({"usage": {"input_tokens": 1}, "usage_status": "unknown"}, (None,) * 6),
]
UNREADABLE: list[Any] = [
    {"prompt_tokens": -1, "completion_tokens": 20},
    {"prompt_tokens": 100, "completion_tokens": "many"},
    {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": "some"}},
    {"tokens": 120},
    {"total_tokens": 120},
    [{"input_tokens": 100, "output_tokens": 20}],
    12,
]


@pytest.mark.parametrize(("row", "counts"), BLOCKS)
def test_tokens_of_a_block(
    url: str, db: Db, tmp_path: Path, row: dict[str, Any], counts: tuple[int | None, ...]
) -> None:
    report = import_file(url, jsonl(tmp_path / "a.jsonl", [{"conversation": "c", **row}]))
    assert report.unread_usage == 0
    found = db.execute(
        "select prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, "
        "cache_write_tokens, reasoning_tokens from chatter.messages"
    ).fetchone()
    assert found == counts
    kept = db.execute("select usage is not null, usage_status from chatter.messages").fetchone()
    assert kept == (True, "reported" if counts[0] else "unknown")


@pytest.mark.parametrize("block", UNREADABLE, ids=str)
def test_a_block_that_cant_be_read_for_certain_is_unknown(
    url: str, db: Db, tmp_path: Path, block: Any
) -> None:
    row = {"conversation": "c", "usage": block}
    report = import_file(url, jsonl(tmp_path / "a.jsonl", [row]))
    assert (report.booked, report.unread_usage) == (1, 1)
    found = db.execute(
        "select prompt_tokens, completion_tokens, total_tokens, usage_status, usage "
        "from chatter.messages"
    ).fetchone()
    assert found == (None, None, None, "unknown", block)


def test_what_was_read_can_be_priced(url: str, db: Db, tmp_path: Path) -> None:
    """Pricing reads the block once more, and refuses one that says other counts."""
    usage = {"input_tokens": 1000, "output_tokens": 100}
    row = {"conversation": "c", "provider": "openai", "model": "gpt-4o-mini", "usage": usage}
    import_file(url, jsonl(tmp_path / "a.jsonl", [row]))
    engine = sync_engine(url)
    with engine.connect() as connection:
        assert reprice(connection, Selection(), reason="imported").priced == 1
    engine.dispose()
    assert db.execute("select total_cost from chatter.conversations").fetchall() == [
        (Decimal("0.00021"),)
    ]


@ONE_SERVER
def test_blocks_in_csv_and_their_count_at_the_end(
    chatter_command: Run, url: str, tmp_path: Path
) -> None:
    blocks = ['"{""input_tokens"": 100, ""output_tokens"": 20}"', '"{""tokens"": 1}"', ""]
    (tmp_path / "a.csv").write_text("conversation,usage\n" + "".join(f"c,{b}\n" for b in blocks))
    done = chatter_command("import", "a.csv", "--dry-run", "--json", url=url)
    facts = json.loads(done.stdout)
    assert (facts["prompt_tokens"], facts["unread_usage"]) == (100, 1)
    done = chatter_command("import", "a.csv", url=url)
    assert "Rows with a usage block that can't be read: 1." in done.stdout
