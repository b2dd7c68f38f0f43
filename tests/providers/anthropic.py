"""A provider that speaks Anthropic's messages.

https://docs.claude.com/en/api/messages
"""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from tests.providers.serving import Handler, Provider, Reply, event, serving, words


def running() -> AbstractContextManager[Provider]:
    """Starts a provider on a free port of loopback."""
    return serving(_Handler)


class _Handler(Handler):
    def failure(self, reply: Reply) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "api_error", "message": "scripted failure"}}

    def answer(self, request: dict[str, Any], reply: Reply) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if reply.text:
            content.append({"type": "text", "text": reply.text})
        content += [_tool_use(name, arguments) for name, arguments in reply.tools]
        return _message(request, reply, content, _usage(reply))

    def opening(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        begun = {**_input(reply), "output_tokens": 1}
        message = _message(request, reply, [], begun)
        message["stop_reason"] = None
        yield event({"type": "message_start", "message": message}, "message_start")
        if reply.text:
            yield from _block(
                0, {"type": "text", "text": ""}, [("text_delta", "text", w) for w in words(reply)]
            )
        for index, (name, arguments) in enumerate(reply.tools, start=bool(reply.text)):
            delta = [("input_json_delta", "partial_json", json.dumps(arguments))]
            yield from _block(index, {**_tool_use(name, arguments), "input": {}}, delta)

    def closing(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        reason = "tool_use" if reply.tools else "end_turn"
        yield event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": None},
                "usage": _usage(reply),
            },
            "message_delta",
        )
        yield event({"type": "message_stop"}, "message_stop")


def _block(
    index: int, start: dict[str, Any], deltas: list[tuple[str, str, str]]
) -> Iterator[bytes]:
    kind = "content_block_start"
    yield event({"type": kind, "index": index, "content_block": start}, kind)
    kind = "content_block_delta"
    for delta, name, text in deltas:
        yield event({"type": kind, "index": index, "delta": {"type": delta, name: text}}, kind)
    kind = "content_block_stop"
    yield event({"type": kind, "index": index}, kind)


def _message(
    request: dict[str, Any], reply: Reply, content: list[dict[str, Any]], usage: Any
) -> dict[str, Any]:
    return {
        "id": f"msg_{time.time_ns()}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": content,
        "stop_reason": "tool_use" if reply.tools else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def _tool_use(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": f"toolu_{time.time_ns()}",
        "name": name,
        "input": arguments,
    }


def _input(reply: Reply) -> dict[str, Any]:
    read, written = reply.cache_read_tokens or 0, reply.cache_write_tokens or 0
    hour = reply.cache_write_1h_tokens or 0
    return {
        "input_tokens": reply.prompt_tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written - hour,
            "ephemeral_1h_input_tokens": hour,
        },
        "service_tier": reply.service_tier or "standard",
    }


def _usage(reply: Reply) -> Any:
    if reply.usage is not None:
        return reply.usage
    usage = {**_input(reply), "output_tokens": reply.completion_tokens}
    if reply.reasoning_tokens is not None:
        usage["output_tokens_details"] = {"thinking_tokens": reply.reasoning_tokens}
    return usage
