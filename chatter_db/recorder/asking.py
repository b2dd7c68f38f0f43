"""Whom a call was asked of, and with what that changes its price and no answer tells of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from chatter_db.recorder.endpoints import PLACE, place_asked, provider_asked, url_given
from chatter_db.recorder.usage import Usage
from chatter_db.recorder.usage.counts import SPEECH

LIFETIME = "cache_ttl"

# Whose packages leave out which tokens are text and which are sound, or how long it was.
_WITHOUT_MODALITIES = ("google", "mistral", "vertex")
_SOUNDS = ("audio", "input_audio", "video")

# Where cache writes are given a lifetime: Anthropic's, Bedrock's and OpenAI's name for it.
_CONTROLS = ("cache_control", "cachePoint", "prompt_cache_options")
_DEARER = ("1h", "12h")
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
    if lifetime := _lifetime([parameters, *(each.content for each in question)]):
        terms[LIFETIME] = lifetime
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


def _lifetime(asked: object, depth: int = 0) -> str | None:
    """How long what is asked for shall be cached, where that costs more than usual."""
    if depth > _MAX_DEPTH or not isinstance(asked, Mapping | list | tuple):
        return None
    inside: Iterable[object] = asked
    if isinstance(asked, Mapping):
        for control in filter(None, map(asked.get, _CONTROLS)):
            if isinstance(control, Mapping) and control.get("ttl") in _DEARER:
                return str(control["ttl"])
        inside = asked.values()
    return next(filter(None, (_lifetime(each, depth + 1) for each in inside)), None)
