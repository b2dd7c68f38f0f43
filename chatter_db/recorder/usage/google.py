"""Gemini, by its own API and by Vertex AI.

Thoughts and the prompts of tools stand beside prompt and candidates and are in
the total; cached content is part of the prompt. Protobuf's JSON leaves out what
is 0. In a stream every block replaces the one before.

- https://ai.google.dev/api/generate-content#UsageMetadata
- https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse
- Interactions, with other names for the same: https://ai.google.dev/api/interactions-api
- https://protobuf.dev/programming-guides/json/
"""

import re
from collections.abc import Mapping
from typing import Any

from chatter_db.recorder.usage.counts import GROUNDED, Reader, Usage, added, total_of

# Vertex may write the enum's number for its name.
_MODALITIES = {"2": "image", "3": "video", "4": "audio"} | {
    name.upper(): name for name in ("image", "video", "audio")
}
# What interactions say, by the names of usageMetadata.
_INTERACTION = {
    "total_input_tokens": "prompt_token_count",
    "total_output_tokens": "candidates_token_count",
    "total_thought_tokens": "thoughts_token_count",
    "total_cached_tokens": "cached_content_token_count",
    "total_tool_use_tokens": "tool_use_prompt_token_count",
    "total_tokens": "total_token_count",
    "input_tokens_by_modality": "prompt_tokens_details",
    "output_tokens_by_modality": "candidates_tokens_details",
    "cached_tokens_by_modality": "cache_tokens_details",
    "tool_use_tokens_by_modality": "tool_use_prompt_tokens_details",
}
_TRAFFIC = {"2": "provisioned", "3": "priority", "4": "flex"}


def gemini(metadata: Mapping[str, Any], notes: list[str], *, ended: bool = True) -> Usage:
    """`usageMetadata`. Unless the answer has `ended`, no candidates is no zero."""
    # The JSON has camelCase, the SDK's objects snake_case.
    named = {_snake(str(key)): value for key, value in metadata.items()}
    block = Reader({_INTERACTION.get(key, key): value for key, value in named.items()}, notes)
    thoughts = block.addend("thoughts_token_count")
    prompt = None
    if "prompt_token_count" in block or "tool_use_prompt_token_count" in block:
        prompt = added(
            block.addend("prompt_token_count"), block.addend("tool_use_prompt_token_count")
        )
    # The name until 2024 of what Vertex calls candidates: response tokens, in live sessions.
    names = ("candidates_token_count", "response_token_count")
    candidates, stated = block.addend(*names), block.count("total_token_count")
    completion = None
    if ended or thoughts or any(name in block for name in names):
        completion = added(candidates, thoughts)
        if 0 < (thoughts or 0) <= (candidates or 0) and added(prompt, candidates) == stated:
            # For some weeks of 2025 thoughts were part of the candidates, as the total tells:
            # https://github.com/BerriAI/litellm/pull/10141
            completion = candidates
    # Until Google counted thoughts they were in the total only:
    # https://github.com/vercel/ai/pull/6738
    untold = (stated or 0) > (added(prompt or 0, completion or 0) or 0)
    if (untold and "thoughts_token_count" not in block) or (prompt is None and not completion):
        completion = None
    known = prompt is not None or completion is not None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(stated, prompt, completion),
        cache_read_tokens=block.addend("cached_content_token_count") if known else None,
        reasoning_tokens=thoughts if completion is not None else None,
        kinds=_kinds(block),
        terms=_terms(block),
    )


def _kinds(block: Reader) -> dict[str, int]:
    grounded = sum(entry.count("count") or 1 for entry in block.entries(GROUNDED))
    kinds: dict[str, int] = {GROUNDED: grounded} if grounded else {}
    for name, kind in (
        ("prompt_tokens_details", "input_{}_tokens"),
        ("tool_use_prompt_tokens_details", "input_{}_tokens"),
        ("cache_tokens_details", "cache_{}_read_tokens"),
        ("candidates_tokens_details", "output_{}_tokens"),
        ("response_tokens_details", "output_{}_tokens"),
    ):
        for entry in block.entries(name):
            said = str(entry.value("modality") or entry.value("Modality"))
            modality = _MODALITIES.get(said.upper())
            count = entry.addend("tokenCount", "token_count", "tokens")
            if modality and count:
                key = kind.format(modality)
                kinds[key] = kinds.get(key, 0) + count
    return kinds


def _terms(block: Reader) -> dict[str, str]:
    traffic = str(block.value("traffic_type"))
    said = f"{block.text('service_tier')} {_TRAFFIC.get(traffic, traffic)}".lower()
    tier = next((tier for tier in ("flex", "priority", "provisioned") if tier in said), None)
    return {"service_tier": tier} if tier else {}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()
