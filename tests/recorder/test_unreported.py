"""Calls whose provider reports no usage: told of once, estimated where asked for, never priced."""

import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

from chatter_db import Chatter, UsageError
from chatter_db.recorder import unreported
from tests.providers import openai
from tests.providers.openai import Provider, Reply
from tests.recorder.graphs import model_of, single
from tests.recorder.test_ways import Database, question


@pytest.fixture(scope="module")
def asked() -> Iterator[Provider]:
    with openai.running() as provider:
        yield provider


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unreported, "_told", set())


def silent(provider: Provider, **options: Any) -> Any:
    """As ChatOpenAI is for any server but OpenAI's own."""
    return model_of(provider, stream_usage=None, **options)


ROW = (
    "select usage_status, prompt_tokens, completion_tokens, cost, metadata from chatter.messages"
    " where model_call order by created_at"
)


async def test_it_is_said_once_for_a_model(
    chatter: Chatter,
    db: Database,
    asked: Provider,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And of a few only, shortened, however many and long the names are."""
    monkeypatch.setattr(unreported, "_MAX_TOLD", 2)
    config: RunnableConfig = {"callbacks": [chatter.recorder()]}
    with caplog.at_level(logging.WARNING, "chatter_db"):
        # Nothing that is said would help one that was not streamed.
        asked.script.append(Reply("All right.", usage={"none": 1}))
        await silent(asked, name="gpt-4").ainvoke("Rain?", config)
        for name in ("gpt-4o-mini", "gpt-4o-mini", "m" * 300, "gpt-4o"):
            async for _ in silent(asked, name=name).astream("Rain?", config):
                pass
        async for _ in model_of(asked, "gpt-4").astream("Rain?", config):
            pass
    told = [r.getMessage() for r in caplog.records if r.name == unreported.__name__]
    assert len(told) == 2
    assert "stream_usage=True" in told[0]
    assert "gpt-4o-mini" in told[0] and f" {'m' * 200} streamed" in told[1]
    assert [row[0] for row in db.execute(ROW)] == ["unknown"] * 5 + ["reported"]


async def test_an_estimate_is_marked_and_has_no_price(
    chatter: Chatter, db: Database, asked: Provider
) -> None:
    # Nor one of one's own, which the database applies.
    db.execute(
        "insert into chatter.prices (provider, model, valid_from, prompt_price, completion_price) "
        "values ('openai', 'gpt-4o-mini', '2026-01-01', 2, 10)"
    )
    config: RunnableConfig = {"callbacks": [chatter.recorder(estimate_usage=True)]}
    asked.script = [Reply("Take an umbrella with you.")]
    async for _ in single(silent(asked)).astream(question(), config, stream_mode="messages"):
        pass
    # What was reported is never estimated, nor what failed before a word of it came.
    await single(model_of(asked)).ainvoke(question(), config)
    asked.script = [Reply(status=500)]
    with pytest.raises(Exception, match="scripted failure"):
        await single(model_of(asked)).ainvoke(question(), config)
    estimate, reported, failed = db.execute(ROW).fetchall()
    status, prompt, completion, cost, metadata = estimate
    assert (status, cost) == ("estimated", None)
    assert 3 <= prompt <= 12 and 5 <= completion <= 15
    assert metadata["usage_estimated_by"] == "count_tokens_approximately"
    assert reported[:4] == ("reported", 10, 5, Decimal("0.00007"))
    assert failed[:3] == ("unknown", None, None)
    assert (
        db.execute("select unpriced_calls from chatter.conversations").fetchall().count((1,)) == 2
    )


async def test_an_estimate_of_a_part(chatter: Chatter, db: Database, asked: Provider) -> None:
    asked.script = [Reply("Umbrella", cut=True)]
    with pytest.raises(Exception, match=r"peer closed|incomplete|[Cc]onnection"):
        async for _ in silent(asked).astream(
            "Rain?", {"callbacks": [chatter.recorder(estimate_usage=True)]}
        ):
            pass
    ((status, prompt, completion, cost, _),) = db.execute(ROW).fetchall()
    assert (status, cost) == ("estimated", None)
    assert prompt and completion


@pytest.mark.parametrize("argument", ["content", "estimate_usage"])
async def test_a_flag_is_true_or_false(chatter: Chatter, argument: str) -> None:
    options: dict[str, Any] = {argument: "no"}
    with pytest.raises(UsageError, match=f"{argument} must be True or False, not str"):
        chatter.recorder(**options)


async def test_metadata_that_json_cannot_hold(chatter: Chatter) -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    for metadata in ({"t": {1, object()}}, endless):
        with pytest.raises(UsageError, match="metadata must be JSON"):
            chatter.recorder(metadata=metadata)


async def test_metadata_is_taken_as_it_was_given(
    chatter: Chatter, db: Database, asked: Provider
) -> None:
    given: dict[str, Any] = {"a": {"b": 1}}
    run = chatter.recorder(metadata=given)
    given["a"]["b"] = object()
    await silent(asked).ainvoke("Rain?", {"callbacks": [run]})
    assert db.execute("select metadata from chatter.workflow_executions").fetchall() == [
        ({"a": {"b": 1}},)
    ]
