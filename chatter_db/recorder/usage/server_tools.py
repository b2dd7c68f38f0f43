"""Tools that a provider runs for a call: billed one by one, and counted in no usage block.

OpenAI lists them among its output, and bills each search, not what is opened of its results
(https://platform.openai.com/docs/guides/tools-web-search), and each image that another model
makes. Gemini names its queries beside the answer: up to Gemini 2.5 an answer with any is billed
once, since Gemini 3 each query (https://ai.google.dev/gemini-api/docs/pricing). Anthropic counts
its searches in the usage, of which langchain-anthropic leaves out that part where it streams.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage

IMAGES = "generated_images"
"""The kind that genai-prices has no name for."""

_KINDS = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "image_generation_call": IMAGES,
    # As langchain-openai names them in its output version 1.
    "web_search": "web_searches",
    "file_search": "storage_searches",
    "image_generation": IMAGES,
}
_RESULT = "web_search_tool_result"
_PER_ANSWER = re.compile(r"gemini-[12]\b")


def of_messages(messages: Iterable[AIMessage]) -> dict[str, int]:
    """How often an answer, or the chunks of one, tell of each, by genai-prices' names."""
    made: dict[str, str] = {}
    queries: set[str] = set()
    per_answer = False
    for message in messages:
        for item in _items(message):
            kind = _kind(item)
            if kind:
                made[str(item.get("id") or len(made))] = kind
        said = message.response_metadata
        queries |= _queries(said.get("grounding_metadata"))
        per_answer = per_answer or bool(_PER_ANSWER.search(str(said.get("model_name"))))
    counts = {kind: list(made.values()).count(kind) for kind in set(made.values())}
    return counts | ({"web_searches": 1 if per_answer else len(queries)} if queries else {})


def of_anthropic(messages: Iterable[AIMessage]) -> dict[str, int]:
    """Searches that an answer has results of: what failed is not billed."""
    found = {
        str(item.get("tool_use_id") or item.get("tool_call_id"))
        for message in messages
        for item in _items(message)
        if _has_found(item)
    }
    return {"web_searches": len(found)} if found else {}


def drawn(messages: Iterable[AIMessage]) -> dict[str, int]:
    """Pictures that are part of an answer of Gemini's."""
    pictures = [
        item
        for message in messages
        for item in _items(message)
        if item.get("type") in ("image", "image_url")
    ]
    return {IMAGES: len(pictures)} if pictures else {}


def _has_found(item: Mapping[str, Any]) -> bool:
    if item.get("type") == "server_tool_result":
        # As langchain-anthropic has it in its output version 1.
        extras = item.get("extras")
        of_search = isinstance(extras, Mapping) and extras.get("block_type") == _RESULT
        return of_search and item.get("status") == "success"
    return item.get("type") == _RESULT and isinstance(item.get("content"), list)


def _items(message: AIMessage) -> list[Mapping[str, Any]]:
    places = (message.content, message.additional_kwargs.get("tool_outputs"))
    return [
        item
        for place in places
        if isinstance(place, list)
        for item in place
        if isinstance(item, Mapping)
    ]


def _kind(item: Mapping[str, Any]) -> str | None:
    if item.get("type") == "server_tool_call":
        name, action = item.get("name"), item.get("args")
    else:
        name, action = item.get("type"), item.get("action")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    opened = isinstance(action, Mapping) and action.get("type") not in (None, "search")
    return None if opened or item.get("status") == "failed" else kind


def _queries(grounding: object) -> set[str]:
    queries = grounding.get("web_search_queries") if isinstance(grounding, Mapping) else None
    if not isinstance(queries, Sequence) or isinstance(queries, str):
        return set()
    return {query for query in queries if isinstance(query, str)}
