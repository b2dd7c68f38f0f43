"""Who was asked for a call, and at which terms: what changes its price and is in no answer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from chatter_db.recorder.endpoints import (
    PLACE,
    place_asked,
    provider_asked,
    provider_packaged,
    url_given,
)
from chatter_db.recorder.usage import Usage
from chatter_db.recorder.usage.counts import SPEECH

LIFETIME = "cache_ttl"

# Whose packages leave out which tokens are text and which are sound, or how long it was.
_WITHOUT_MODALITIES = ("google", "mistral", "vertex")
_SOUNDS = ("audio", "input_audio", "video")

# Where cache writes are given a lifetime: Anthropic's, Bedrock's and OpenAI's name for it.
_CONTROLS = ("cache_control", "cachePoint", "prompt_cache_options")
_DEARER = ("1h", "12h")


def endpoint_asked(provider: str | None, serialized: Mapping[str, Any] | None) -> str | None:
    """The provider at the address that a model was made with, or whose own package it is of."""
    return provider_asked(provider, url_given(serialized)) or provider_packaged(
        provider, serialized
    )


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
    parts, tools = _parts(question), parameters.get("tools")
    if lifetime := _lifetime([parameters, *(tools if isinstance(tools, list) else ()), *parts]):
        terms[LIFETIME] = lifetime
    silent = any(name in str(provider).lower() for name in _WITHOUT_MODALITIES)
    if silent and any(map(_is_sound, parts)):
        terms[SPEECH] = "unknown"
    return terms


def asks_for_schema(options: Mapping[str, Any]) -> bool:
    """Whether what looks like a tool is a schema to answer in, as `with_structured_output` has it.

    Where the provider's protocol has nothing better: LangChain says so in the call's options.
    """
    asked = options.get("ls_structured_output_format")
    settings = asked.get("kwargs") if isinstance(asked, Mapping) else None
    return isinstance(settings, Mapping) and settings.get("method") == "function_calling"


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


def _lifetime(parts: Iterable[object]) -> str | None:
    """How long what is asked for shall be cached, where that costs more than usual."""
    controls = (part.get(name) for part in parts if isinstance(part, dict) for name in _CONTROLS)
    lifetimes = (control.get("ttl") for control in controls if isinstance(control, dict))
    return next((lifetime for lifetime in lifetimes if lifetime in _DEARER), None)


def _parts(question: Sequence[BaseMessage]) -> list[object]:
    return [part for each in question if isinstance(each.content, list) for part in each.content]
