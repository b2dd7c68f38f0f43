"""Finds the usage in a response's body or in the events of a stream, and knows whose it is.

A provider's name is a hint, the shape decides: the same body comes from OpenAI,
a gateway or a server of one's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from chatter_db.recorder.usage import (
    anthropic,
    bedrock,
    cohere,
    completions,
    google,
    ollama,
    openai,
    vercel,
)
from chatter_db.recorder.usage.counts import Reader, Usage, as_count, merged, plain

Family = Literal[
    "anthropic", "chat", "cohere", "completion", "converse", "gemini", "llama", "metrics",
    "ollama", "responses", "titan", "vercel",
]  # fmt: skip

_READERS: dict[Family, Callable[[Reader], Usage]] = {
    "anthropic": anthropic.messages,
    "cohere": cohere.chat,
    "completion": completions.completion,
    "converse": bedrock.converse,
    "llama": bedrock.llama,
    "metrics": bedrock.invocation,
    "ollama": ollama.chat,
    "responses": openai.responses,
    "titan": bedrock.titan,
    "vercel": vercel.usage,
}

# A name that stands for each family, in the order in which they are told apart.
_SIGNS: tuple[tuple[Family, frozenset[str]], ...] = (
    ("cohere", frozenset({"tokens", "billed_units"})),
    ("vercel", frozenset({"inputTokenDetails", "outputTokenDetails"})),
    ("converse", frozenset({"inputTokens", "outputTokens"})),
    ("metrics", frozenset({"inputTokenCount", "outputTokenCount"})),
    ("titan", frozenset({"inputTextTokenCount", "totalOutputTextTokenCount"})),
    ("gemini", frozenset({"promptTokenCount", "candidatesTokenCount", "totalTokenCount"})),
    ("gemini", frozenset({"candidates_token_count", "total_token_count"})),
    ("gemini", frozenset({"total_input_tokens", "total_output_tokens"})),
    ("gemini", frozenset({"totalInputTokens", "totalOutputTokens"})),
    ("ollama", frozenset(ollama.NAMES)),
    ("chat", frozenset({"prompt_tokens", "completion_tokens"}) | openai.XAI_PROTO),
    ("responses", frozenset({"input_tokens_details", "output_tokens_details"})),
    ("anthropic", anthropic.NAMES),
    ("responses", frozenset({"input_tokens", "output_tokens"})),
    ("llama", frozenset({"prompt_token_count", "generation_token_count"})),
    ("completion", completions.SIGNS),
    ("chat", frozenset({"total_tokens"})),
)

# Zeros in their streams are said before anything was counted; a guardrail of Bedrock's means them.
_PLACEHOLDERS: frozenset[Family] = frozenset({"chat", "gemini", "responses"})

# What looks like Converse's, and has the cache in the input or beside it, who knows: Vercel's of
# before version 6, where a model's maker decided, and what agents sum up.
_NOT_CONVERSE = frozenset({"cachedInputTokens", "cacheCreationInputTokens", "reasoningTokens"})

# Where the counts stand beside the text: what may be kept of such a body.
_KEPT: dict[Family, frozenset[str]] = {
    "completion": completions.NAMES,
    "llama": frozenset({"prompt_token_count", "generation_token_count"}),
    "ollama": frozenset(
        {*ollama.NAMES, ollama.CACHED, "total_duration", "load_duration"}
        | {"prompt_eval_duration", "eval_duration"}
    ),
    "titan": frozenset({"inputTextTokenCount", "totalOutputTextTokenCount", "results"}),
}

# Where usage is, on the way down into a body or an event.
_PLACES = (
    ("usage",),
    ("usageMetadata",),
    ("usage_metadata",),
    ("message", "usage"),  # Anthropic, message_start
    ("response", "usage"),  # OpenAI responses, response.completed
    ("interaction", "usage"),  # Gemini's interactions, interaction.completed
    ("response", "meta"),  # Cohere 1, stream-end
    ("meta",),  # Cohere 1
    ("delta", "usage"),  # Cohere 2, message-end
    ("metadata", "usage"),  # Converse
    ("x_groq", "usage"),
    ("result", "usage"),  # Cloudflare, YandexGPT
    ("Response", "Usage"),  # Hunyuan
    ("Usage",),  # and its streams
    ("data", "usage"),  # OpenAI's assistants, an event with its name
    ("response", "usageMetadata"),  # Gemini's Code Assist
    (bedrock.METRICS,),
)


@dataclass(frozen=True)
class _Found:
    family: Family
    block: Mapping[str, Any]


def from_wire(
    provider: str | None, body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | object
) -> Usage:
    """The usage that a provider stated.

    `body` is a response's body, its usage block alone, or the events of a stream
    as far as they came. Never raises: what can't be read is in `notes`. An error
    states no usage.
    """
    streamed = isinstance(body, Sequence) and not isinstance(body, str | bytes)
    events: list[Mapping[str, Any]] = [
        event
        for event in (body if isinstance(body, Sequence) and streamed else [body])
        if isinstance(event, Mapping) and not _is_error(event)
    ]
    found = [one for event in events for one in _found(provider, event)]
    if not found:
        return _without_usage(events)
    chosen = _chosen(found, events, streamed=streamed)
    notes: list[str] = []
    ended = not streamed or any(_has_ended(event) for event in events)
    usage = read(chosen.family, chosen.block, provider, notes=notes, ended=ended)
    if chosen.family == "chat" and not ended:
        # What was written when the stream broke off was not counted yet, nor what it cost:
        # Perplexity says 0 until the last chunk.
        usage = replace(usage, completion_tokens=usage.completion_tokens or None, cost=None)
    raw = plain(_kept(chosen)) or None
    if streamed and chosen.family in _PLACEHOLDERS and not _has_counts(chosen):
        return Usage(raw=raw, notes=tuple(notes))
    if chosen.family in ("chat", "responses"):
        # Mistral's stands in the usage.
        usage = replace(usage, terms=_tier([chosen.block, *events]))
    elif chosen.family == "gemini":
        usage = replace(usage, terms=_tier(events) | dict(usage.terms))
    elif chosen.family == "anthropic":
        usage = anthropic.refused(usage, merged(map(_ended_by, events)))
        if streamed and usage.completion_tokens is None:
            usage = anthropic.cut_off(usage)
    elif chosen.family == "converse":
        beside = [event.get("metadata", event) for event in events]
        terms = merged(bedrock.terms(one) for one in beside if isinstance(one, Mapping))
        usage = replace(usage, terms=terms)
    return replace(usage, raw=raw, notes=tuple(notes))


def family_of(block: Mapping[str, Any], *, anthropic_said: bool = False) -> Family | None:
    """Whose usage block this is, by the names in it."""
    names = {name for name in block if isinstance(name, str)}
    if names & anthropic.NAMES and not names & {"prompt_tokens", "total_tokens"}:
        return "anthropic"
    for family, signs in _SIGNS:
        if family == "cohere" and not isinstance(
            block.get("tokens", block.get("billed_units")), Mapping
        ):
            continue
        if family == "converse" and names & _NOT_CONVERSE:
            return None
        if names & signs:
            if family == "responses" and anthropic_said and "total_tokens" not in names:
                return "anthropic"
            return family
    return None


def read(
    family: Family,
    block: Mapping[str, Any],
    provider: str | None,
    *,
    notes: list[str],
    ended: bool = True,
) -> Usage:
    """Reads a usage block of `family`."""
    xai = provider is not None and provider.lower().replace("-", "").startswith("xai")
    if family == "gemini":
        return google.gemini(block, notes, ended=ended)
    if family == "chat":
        return openai.chat(Reader(block, notes), xai=xai)
    return _READERS[family](Reader(block, notes))


def is_anthropic(provider: str | None) -> bool:
    return provider is not None and "anthropic" in provider.lower()


def _found(provider: str | None, event: Mapping[str, Any]) -> Iterator[_Found]:
    kind = event.get("type")
    said = is_anthropic(provider) or kind in ("message", "message_start", "message_delta")
    for block in _blocks(event):
        family = family_of(block, anthropic_said=said)
        if family is not None:
            yield _Found(family, block)
    own = family_of(event, anthropic_said=said)
    beside = own in _KEPT and own != "completion"
    if own is not None and (beside or not any(True for _ in _blocks(event))):
        # Ollama, Titan and Llama count beside the text; else the event is a usage block itself,
        # or has its counts where one would be.
        yield _Found(own, event)


def _blocks(event: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    details = event.get("details")
    if isinstance(details, Mapping) and "generated_tokens" in details and "usage" not in event:
        yield details  # Hugging Face's text generation inference
    for place in _PLACES:
        block: object = event
        for name in place:
            block = block.get(name) if isinstance(block, Mapping) else None
        if isinstance(block, Mapping) and block:
            yield block
    # Moonshot's streams have it on the choice.
    block = _first_of(event.get("choices")).get("usage")
    if isinstance(block, Mapping) and block:
        yield block
    block = _first_of(event.get("results"))
    if "generated_token_count" in block:  # watsonx.ai
        yield block


def _first_of(answers: object) -> Mapping[str, Any]:
    if isinstance(answers, Sequence) and answers and isinstance(answers[0], Mapping):
        return answers[0]
    return {}


def _chosen(found: list[_Found], events: list[Mapping[str, Any]], *, streamed: bool) -> _Found:
    """The usage of all: of a stream the last one, or what its protocol says of several."""
    metrics = [one for one in found if one.family == "metrics"]
    own = [one for one in found if one.family != "metrics"]
    if metrics and not any("cache" in str(name).lower() for one in own for name in one.block):
        # Bedrock's own count, which every model it invokes has. Where the model's
        # says more (of a cache) that one is taken.
        return own[-1] if own and _is_detailed(own[-1], metrics[-1]) else metrics[-1]
    last = own[-1]
    if last.family == "anthropic" or any(one.family == "anthropic" for one in own):
        if not streamed and not any(map(_counts, last.block.values())):
            return last  # A guardrail of Bedrock's blocked it: the zeros are meant.
        block = anthropic.of_stream(events)
        return last if block is None else _Found("anthropic", block)
    if last.family == "completion" and streamed:
        blocks = [one.block for one in own if one.family == "completion"]
        return _Found("completion", completions.of_stream(blocks))
    if last.family == "llama":
        return _Found("llama", merged(one.block for one in own if one.family == "llama"))
    # Counts of a stream only grow: a block of zeros after others is a placeholder.
    counted = [one for one in own if one.family == last.family and _has_counts(one)]
    return counted[-1] if counted else last


def _is_detailed(own: _Found, metrics: _Found) -> bool:
    """Whether a model's block has the counts of Bedrock's metrics, and details of a cache."""
    details = [value for value in own.block.values() if isinstance(value, Mapping)]
    if not any("cache" in str(name).lower() for names in details for name in names):
        return False
    model, bedrocks = (read(one.family, one.block, None, notes=[]) for one in (own, metrics))
    return (model.prompt_tokens, model.completion_tokens) == (
        bedrocks.prompt_tokens,
        bedrocks.completion_tokens,
    )


def _has_counts(one: _Found) -> bool:
    return any(map(_counts, _kept(one).values()))


def _counts(value: object) -> bool:
    # One level of details is enough: whatever nests deeper is no usage of anybody's.
    values = value.values() if isinstance(value, Mapping) else [value]
    return any(map(as_count, values))


def _kept(one: _Found) -> dict[str, Any]:
    names = _KEPT.get(one.family)
    kept = {key: value for key, value in one.block.items() if names is None or key in names}
    if one.family == "titan" and isinstance(kept.get("results"), Sequence):
        kept["results"] = [
            {"tokenCount": result.get("tokenCount")}
            for result in kept["results"]
            if isinstance(result, Mapping)
        ]
    return kept


def _is_error(event: Mapping[str, Any]) -> bool:
    """Whether `event` is an error and nothing else.

    A chunk or a response that says in what it failed states what it used until
    then: https://openrouter.ai/docs/api-reference/errors
    """
    if event.get("choices") or event.get("object") == "response":
        return False
    return bool(event.get("error")) or event.get("type") == "error"


def _has_ended(event: Mapping[str, Any]) -> bool:
    """Whether this event of Gemini, or chunk of a chat, is the last: it has a reason to be."""
    if event.get("promptFeedback") or event.get("prompt_feedback"):
        return True
    if event.get("choices") == [] and event.get("usage"):
        return True
    candidates = event.get("candidates", event.get("choices"))
    return isinstance(candidates, Sequence) and any(
        isinstance(one, Mapping) and (one.get("finishReason") or one.get("finish_reason"))
        for one in candidates
    )


def _ended_by(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of an event of Anthropic's says why it is the last."""
    delta = event.get("delta")
    return {
        "stop_reason": delta.get("stop_reason")
        if isinstance(delta, Mapping)
        else event.get("stop_reason")
    }


def _tier(events: list[Mapping[str, Any]]) -> dict[str, str]:
    """The service tier that OpenAI says beside the usage, and Google's interactions."""
    for event in reversed(events):
        for body in (event.get("response"), event.get("interaction"), event):
            tier = body.get("service_tier") if isinstance(body, Mapping) else None
            if isinstance(tier, str) and tier:
                return {"service_tier": tier}
    return {}


def _without_usage(events: list[Mapping[str, Any]]) -> Usage:
    """Nothing to book; if there is a usage that is none, it is kept and marked."""
    for event in reversed(events):
        block = event.get("usage", event.get("usageMetadata"))
        if block:
            raw = plain(block if isinstance(block, Mapping) else {"usage": block})
            return Usage(raw=raw, notes=(f"usage: {type(block).__name__} holds no counts",))
    return Usage()
