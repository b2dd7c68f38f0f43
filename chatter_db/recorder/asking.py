"""Whom a call was asked of, and with what that changes its price and no answer tells of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from chatter_db.recorder.endpoints import PLACE, place_asked, provider_asked, url_given
from chatter_db.recorder.usage import Usage
from chatter_db.recorder.usage.counts import SPEECH

LIFETIME = "cache_ttl"

# langchain-google-genai and -vertexai leave out which tokens are text and which are sound.
_WITHOUT_MODALITIES = ("google", "vertex")
_SOUNDS = ("audio", "input_audio", "video")

# Who has cache writes that live for an hour, by a part of the name.
_WITH_LIFETIMES = ("anthropic", "bedrock")
_MAX_DEPTH = 8


def endpoint_asked(provider: str | None, serialized: Mapping[str, Any] | None) -> str | None:
    """The provider at the address that a model was made with, where that is another one."""
    return provider_asked(provider, url_given(serialized))


def terms_asked(
    provider: str | None,
    serialized: Mapping[str, Any] | None,
    question: Sequence[BaseMessage],
    parameters: Mapping[str, Any],
) -> dict[str, str]:
    """The terms of a call by genai-prices' names, or by ours where it has none."""
    terms = {}
    if place := place_asked(provider, url_given(serialized)):
        terms[PLACE] = place
    if any(name in str(provider).lower() for name in _WITH_LIFETIMES) and (
        _keeps_an_hour(parameters) or any(_keeps_an_hour(each.content) for each in question)
    ):
        terms[LIFETIME] = "1h"
    if any(name in str(provider).lower() for name in _WITHOUT_MODALITIES) and any(
        _is_sound(part)
        for each in question
        if isinstance(each.content, list)
        for part in each.content
    ):
        terms[SPEECH] = "unknown"
    return terms


def with_terms(usage: Usage, asked: Mapping[str, str]) -> dict[str, str]:
    """The terms of `usage`, and those `asked` for that its counts don't answer.

    Of a stream the packages say what was written to the cache, not for how long.
    """
    told = {"cache_creation", "cacheDetails"} & (usage.raw or {}).keys()
    if told or usage.cache_write_1h_tokens or not usage.cache_write_tokens:
        asked = {name: term for name, term in asked.items() if name != LIFETIME}
    if usage.kinds.get("input_audio_tokens"):
        asked = {name: term for name, term in asked.items() if name != SPEECH}
    return {**usage.terms, **asked}


def _is_sound(part: object) -> bool:
    """Whether a part of a message can be heard: a film's sound is counted by itself."""
    if not isinstance(part, Mapping):
        return False
    mime = str(part.get("mime_type")).partition("/")[0]
    return part.get("type") in _SOUNDS or mime in _SOUNDS


def _keeps_an_hour(asked: object, depth: int = 0) -> bool:
    if depth > _MAX_DEPTH or not isinstance(asked, Mapping | list | tuple):
        return False
    inside: Iterable[object] = asked
    if isinstance(asked, Mapping):
        for name in ("cache_control", "cachePoint"):
            control = asked.get(name)
            if isinstance(control, Mapping) and control.get("ttl") == "1h":
                return True
        inside = asked.values()
    return any(_keeps_an_hour(each, depth + 1) for each in inside)
