"""Whatever a provider or a package says of itself: the run goes on and the call has its row."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from chatter_db import Chatter, UsageError
from tests.recorder.test_ways import Database, assert_forgotten

odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 10**12, 10**30, 2.5, float("nan"), float("inf"), "12", "a\0b", "\ud800"])
    | st.text(max_size=5)
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
counts = st.integers(0, 10**6) | odd
usage_block = st.dictionaries(
    st.sampled_from(
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
            "cost",
            "cost_in_usd_ticks",
            "iterations",
        ]
    ),
    counts | st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), counts),
    max_size=6,
)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "token_usage": usage_block | odd,
        "usage": usage_block | odd,
        "model_name": odd,
        "model_provider": odd | st.sampled_from(["openai", "anthropic"]),
        "finish_reason": odd,
        "service_tier": odd,
    },
)
usage_metadata = st.none() | st.dictionaries(
    st.sampled_from(["input_tokens", "output_tokens", "total_tokens", "input_token_details"]),
    counts | st.dictionaries(st.sampled_from(["cache_read", "cache_creation"]), counts),
    max_size=4,
)
arguments = st.dictionaries(st.text(max_size=4), odd, max_size=3)


class Odd(BaseChatModel):
    """Says what it is told to say of itself."""

    said: Any = None

    @property
    def _llm_type(self) -> str:
        return "odd"

    def _generate(self, messages: list[BaseMessage], *arguments: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=_with(AIMessage("Yes."), self.said))])


class OddStream(Odd):
    def _stream(
        self, messages: list[BaseMessage], *arguments: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=_with(AIMessageChunk(content="Yes."), self.said))
        raise ConnectionError("cut")


def _with(message: Any, said: Any) -> Any:
    """Past the checks of pydantic, as a package may do it with `model_construct`."""
    metadata, usage, arguments = said
    vars(message)["response_metadata"] = metadata
    vars(message)["usage_metadata"] = usage
    if isinstance(message, AIMessage) and not isinstance(message, AIMessageChunk):
        call = {"name": "tool", "args": arguments, "id": "call-1", "type": "tool_call"}
        vars(message)["tool_calls"] = [call] if arguments else []
    return message


@settings(
    max_examples=60,
    deadline=None,
    # The books are shared by all examples: each looks at its own execution.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(metadata, usage_metadata, arguments, st.booleans())
def test_every_call_has_its_row(
    url: str, said: Any, usage: Any, tool_arguments: Any, stream: bool
) -> None:
    opened, db = _books(url)
    run = opened.recorder(estimate_usage=stream)
    model = (OddStream if stream else Odd)(said=(said, usage, tool_arguments))
    if stream:
        with pytest.raises(ConnectionError):
            list(model.stream("Yes?", {"callbacks": [run]}))
    else:
        assert model.invoke("Yes?", {"callbacks": [run]}).content == "Yes."
    assert opened.lost_records == 0
    assert_forgotten(run)
    assert run.last_run is not None
    assert run.last_run.status == ("failed" if stream else "completed")
    rows = db.execute(
        "select status, usage_status, prompt_tokens, completion_tokens, content"
        " from chatter.messages where model_call and execution_id = %s",
        (run.last_run.execution_id,),
    ).fetchall()
    assert len(rows) == 1
    assert rows[0][4] == "Yes."
    if rows[0][1] == "unknown":
        assert rows[0][2:4] == (None, None)


def _nested(levels: int) -> dict[str, Any]:
    return {"a": _nested(levels - 1) if levels > 2 else 1}


def test_metadata_may_be_nested_as_deep_as_its_column(url: str) -> None:
    """What is deeper is refused when the recorder is made, not by Postgres at the first call."""
    chatter, db = _books(url)
    run = chatter.recorder(metadata=_nested(100))
    GenericFakeChatModel(messages=iter(["Yes."])).invoke("", {"callbacks": [run]})
    booked = db.execute("select metadata from chatter.workflow_executions").fetchall()
    assert booked == [(_nested(100),)]
    with pytest.raises(UsageError, match="must not be nested more than 100 levels deep"):
        chatter.recorder(metadata=_nested(101))
    with pytest.raises(UsageError, match="must not be nested more than 100 levels deep"):
        chatter.recorder(metadata={"a": [_nested(99)]})


_open: dict[str, tuple[Chatter, Database]] = {}


def _books(url: str) -> tuple[Chatter, Database]:
    """One connection for all examples of a test."""
    if url not in _open:
        _open[url] = Chatter.connect(url).__enter__(), psycopg.connect(url, autocommit=True)
    return _open[url]


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while _open:
        chatter, db = _open.popitem()[1]
        chatter.__exit__()
        db.close()
