"""Usage blocks, recorded ones spoilt and others made up: no number that they don't hold.

What is read goes through the recorder's own writer into Postgres, which has to take it.
"""

import copy
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import combinations
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from chatter_db.models import MAX_COST, MAX_TOKENS
from chatter_db.recorder.pricing import cost_of
from chatter_db.recorder.records import MessageRow, RunStarted
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.usage import Usage, from_wire, of_message
from chatter_db.recorder.writer import Writer
from tests.fuzz import nonsense
from tests.fuzz.tally import Outcome, Tally, Tell, drive
from tests.recorder import corpus
from tests.recorder.test_usage_dialects import BLOCKS
from tests.recorder.test_usage_wire import RULES

BATCH = 100
"""Rows that are booked in one go."""

PROVIDERS = [None, "openai", "anthropic", "xai", "google_genai", "bedrock", "openrouter", "ollama"]

NAMES = sorted(
    {
        *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"),
        *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details"),
        *("cached_tokens", "reasoning_tokens", "audio_tokens", "cache_write_tokens"),
        *("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation"),
        *("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "iterations"),
        *("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"),
        *("prompt_token_count", "candidates_token_count", "toolUsePromptTokenCount"),
        *("cachedContentTokenCount", "promptTokensDetails", "generation_token_count"),
        *("inputTokens", "outputTokens", "totalTokens", "cacheReadInputTokens", "cacheDetails"),
        *("inputTokenCount", "outputTokenCount", "inputTextTokenCount", "results", "tokenCount"),
        *("tokens", "billed_units", "prompt_eval_count", "eval_count", "cost", "cost_details"),
        *("prompt_text_tokens", "cached_prompt_text_tokens", "cost_in_usd_ticks", "is_byok"),
        *("prompt_cache_hit_tokens", "server_tool_use", "service_tier", "cache_read", "reasoning"),
        *("input_token_details", "output_token_details", "cache_creation_input_token_count"),
        *("total_input_tokens", "total_output_tokens", "total_thought_tokens"),
        *("total_cached_tokens", "num_cached_tokens", "stop_reason", "grounding_tool_count"),
        *("num_tokens_prompt_total", "num_tokens_generated", "tokens_evaluated"),
        *("tokens_predicted", "input_length", "generated_tokens", "input_token_count"),
        *("generated_token_count", "PromptTokens", "CompletionTokens", "TotalTokens"),
        *("inputTextTokens", "completionTokens", "precached_prompt_tokens"),
        *("inputTokenDetails", "cacheReadTokens", "outputTokenDetails", "reasoningTokens"),
    }
)

PLACES = ["usage", "usageMetadata", "usage_metadata", "message", "response", "meta", "delta"]
PLACES += ["interaction", "result", "data", "details", "Response", "Usage"]

LEFT_OUT_WHEN_ZERO = (
    *("cache_creation", "cache_read_input", "inputTokens", "outputTokens", "cacheRead"),
    *("TokenCount", "token_count", "prompt_text_tokens", "prompt_image_tokens"),
    *("cacheWrite", "total_input_tokens", "total_output_tokens"),
    *("totalInputTokens", "totalOutputTokens"),
)
"""What names belong to protocols in which a count that is left out is 0."""

counts = st.integers(1_000, 999_999) | st.sampled_from([0, 0, "12", "12345", 12.0, 77_777.0])
leaves = counts | counts | counts | nonsense.values
blocks: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(NAMES),
    leaves
    | st.dictionaries(st.sampled_from(NAMES), leaves, max_size=4)
    | st.lists(st.dictionaries(st.sampled_from(NAMES), leaves, max_size=3), max_size=3),
    max_size=7,
)
made_up = st.one_of(
    blocks,
    st.dictionaries(st.sampled_from(PLACES), blocks, max_size=2),
    st.lists(st.dictionaries(st.sampled_from(PLACES), blocks, max_size=2), max_size=4),
    st.fixed_dictionaries({"message": st.fixed_dictionaries({"usage": blocks})}),
    nonsense.values,
)


def recorded() -> list[Any]:
    """Bodies of real providers, where the corpus is; the blocks of the protocols' rules always."""
    rows = corpus.rows("provider_responses.jsonl")
    return [corpus.content(row) for row in rows] + [block for _, _, block, _ in RULES + BLOCKS]


@st.composite
def spoilt(draw: st.DrawFn, bodies: list[Any]) -> Any:
    """A recorded body in which some places hold something else, nothing, or a second spelling."""
    body = copy.deepcopy(draw(st.sampled_from(bodies)))
    if isinstance(body, list) and len(body) > 1 and draw(st.booleans()):
        body = body[: draw(st.integers(1, len(body)))]
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(body))
        if not places:
            return body
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["value", "value", "remove", "spelling", "double"])):
            case "value":
                holder[key] = draw(leaves)
            case "remove":
                del holder[key]
            case "spelling" if isinstance(holder, dict):
                holder[draw(st.sampled_from(NAMES))] = draw(leaves)
            case "double" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
    return body


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Where usage may be: not in the text, which is long."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))[-4:]
    for key, inner in items:
        yield value, key
        if depth < 6:
            yield from _places(inner, depth + 1)


@dataclass(frozen=True)
class Said:
    """What a provider or a package says, and how it comes."""

    way: str
    provider: str | None
    body: Any


def said(bodies: list[Any]) -> st.SearchStrategy[Said]:
    providers = st.sampled_from(PROVIDERS)
    return st.one_of(
        st.builds(Said, st.just("wire"), providers, made_up),
        st.builds(Said, st.just("wire"), providers, spoilt(bodies)),
        st.builds(Said, st.just("message"), providers, made_up),
        st.builds(Said, st.just("metadata"), providers, blocks),
    )


@dataclass
class Campaign:
    """Reads, holds against the block, and books in batches."""

    url: str
    tally: Tally
    _waiting: list[tuple[Said, Usage]] = field(default_factory=list)

    def attempt(self, said: Said) -> Outcome:
        match said.way:
            case "wire":
                usage = from_wire(said.provider, said.body)
            case "message":
                message = AIMessage("Some text.")
                vars(message)["response_metadata"] = {
                    "token_usage": said.body,
                    "model_provider": said.provider,
                }
                usage = of_message(message)
            case _:
                message = AIMessage("Some text.")
                vars(message)["usage_metadata"] = said.body
                usage = of_message(message, provider=said.provider)
        _assert_true(said, usage)
        self._waiting.append((said, usage))
        if len(self._waiting) >= BATCH:
            self.book()
        return "accepted" if usage.status == "reported" else "refused"

    def book(self) -> None:
        """Writes what was read through the recorder's writer, which reduces what is refused."""
        waiting, self._waiting = self._waiting, []
        with closing(Writer(self.url, open_spool("fuzz"))) as writer:
            for future in [writer.submit(_records(usage)) for _, usage in waiting]:
                future.result()
            if writer.reduced + writer.lost == 0:
                return
            for tried, usage in waiting:  # again, one by one
                before = writer.reduced + writer.lost
                writer.submit(_records(usage)).result()
                if writer.reduced + writer.lost > before:
                    self.tally.note_failure(AssertionError("Postgres refused the row"), tried)


def run(url: str, inputs: int, seed: int, tell: Tell) -> Tally:
    tally = Tally("normaliser")
    if not corpus.rows("provider_responses.jsonl"):
        tally.notes.append("the recorded answers are not beside the repository")
    campaign = Campaign(url, tally)
    drive(tally, said(recorded()), inputs, seed, campaign.attempt, tell)
    campaign.book()
    return tally


def _records(usage: Usage) -> list[Any]:
    now = datetime.now(UTC)
    run = RunStarted(
        execution_id=uuid4(),
        conversation_id=None,
        new_conversation=False,
        conversation_external_id="fuzz",
        user_external_id=None,
        workflow_name="fuzz",
        correlation_id="fuzz",
        started_at=now,
        metadata={},
    )
    cost = cost_of(usage, provider="openai", model="gpt-4o-mini", at=now)
    row = MessageRow(
        id=uuid4(),
        execution_id=run.execution_id,
        role="assistant",
        kind="step",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost=cost.amount if cost else None,
        cost_source=cost.source if cost else None,
        usage_status=usage.status,
        usage=usage.raw,
        correlation_id="fuzz",
        metadata={"notes": list(usage.notes)},
        created_at=now,
    )
    return [run, row]


def _assert_true(said: Said, usage: Usage) -> None:
    booked = {
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "total": usage.total_tokens,
        "cache read": usage.cache_read_tokens,
        "cache write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    for name, count in booked.items():
        assert count is None or type(count) is int, f"{name} is no whole number"
        assert count is None or 0 <= count <= MAX_TOKENS, f"{name} is out of bounds"
    assert usage.cost is None or (usage.cost.is_finite() and 0 <= usage.cost < MAX_COST), (
        "the cost is out of bounds"
    )
    if all(count is None for count in booked.values()):
        return
    assert usage.raw, "counts are booked, and the block is not kept"
    stated = _whole_numbers(usage.raw)
    sums = _sums(stated)
    for name in ("prompt", "completion", "cache read", "cache write", "reasoning"):
        count = booked[name]
        assert not count or count in sums, f"{name} is not in the block"
    total = booked["total"]
    parts = (booked["prompt"] or 0) + (booked["completion"] or 0)
    assert not total or total in stated or total == parts, "the total is not in the block"
    if 0 not in stated and not _leaves_out_zeros(usage.raw, said.provider):
        # Anthropic's cache is 0 where nothing is said of it, and the input is stated.
        cached = {"cache read", "cache write"} if "input_tokens" in usage.raw else set()
        zeros = [name for name, count in booked.items() if count == 0 and name not in cached]
        assert not zeros, f"{', '.join(zeros)}: 0 was not reported"


def _leaves_out_zeros(raw: Any, provider: str | None) -> bool:
    names = " ".join(_names(raw))
    added_up = provider in ("anthropic", "google_genai")
    return added_up or any(name in names for name in LEFT_OUT_WHEN_ZERO)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _names(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _names(inner)


def _whole_numbers(value: Any) -> list[int]:
    """Every whole number in a block, however it is written."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in _whole_numbers(inner)]
    if isinstance(value, list | tuple):
        return [number for inner in value for number in _whole_numbers(inner)]
    if isinstance(value, bool) or value is None:
        return []
    try:
        number = Decimal(str(value).strip())
    except ArithmeticError:
        return []
    whole = number.is_finite() and 0 <= number <= MAX_TOKENS and number == int(number)
    return [int(number)] if whole else []


def _sums(stated: list[int]) -> set[int]:
    """Numbers of a block, and sums of up to four, as Anthropic's prompt is, or of all of them."""
    # A number may stand there more than once, as Titan's results do.
    nonzero = [number for number in stated if number]
    distinct = sorted(set(nonzero))
    several = next(each for each in (nonzero, distinct, nonzero[-24:]) if len(each) <= 24)
    found = {sum(some) for size in (2, 3, 4) for some in combinations(several, size)}
    return set(distinct) | found | {sum(stated)}
