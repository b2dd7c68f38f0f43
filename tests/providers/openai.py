"""A provider that speaks OpenAI's protocols, answers by script and logs its bill.

Chat completions, completions and responses:
https://platform.openai.com/docs/api-reference
"""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from tests.providers.serving import (
    Handler,
    Provider,
    Recording,
    Reply,
    event,
    grown,
    serving,
    words,
)

__all__ = ["Provider", "Recording", "Reply", "running"]


def running() -> AbstractContextManager[Provider]:
    """Starts a provider on a free port of loopback."""
    return serving(_Handler)


class _Handler(Handler):
    base_path = "/v1"

    @property
    def _completes_text(self) -> bool:
        return self.path == "/v1/completions"

    def failure(self, reply: Reply) -> dict[str, Any]:
        return {"error": {"message": "scripted failure", "type": "server_error", "code": None}}

    def answer(self, request: dict[str, Any], reply: Reply) -> dict[str, Any]:
        if self.path.endswith("/responses"):
            return _response(request, reply)
        if self._completes_text:
            return {**_text(request, reply.text, _reason(reply)), "usage": _usage(reply)}
        return _completion(request, reply)

    def opening(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        if self.path.endswith("/responses"):
            return _response_opening(request, reply)
        if self._completes_text:
            return (event(_text(request, word, None)) for word in words(reply))
        return _chat_opening(request, reply)

    def closing(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        if self.path.endswith("/responses"):
            response = _response(request, reply)
            return iter([event({"type": f"response.{response['status']}", "response": response})])
        if self._completes_text:
            return iter([event(_text(request, "", _reason(reply))), b"data: [DONE]\n\n"])
        return _chat_closing(request, reply)


def _text(request: dict[str, Any], text: str, reason: str | None) -> dict[str, Any]:
    """A completion, whole or a piece of it."""
    return {
        "id": "cmpl",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}],
    }


def _chat_opening(request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
    for word, count in zip(words(reply) or [""], [*grown(reply), 0], strict=False):
        chunk = _chunk(request, {"role": "assistant", "content": word})
        if reply.usage_so_far:
            chunk["usage"] = _counts(reply.prompt_tokens, count)
        yield event(chunk)
    for index, (name, arguments) in enumerate(reply.tools):
        asked = _tool_call(reply, index, name, arguments)
        yield event(_chunk(request, {"tool_calls": [{"index": index, **asked}]}))


def _chat_closing(request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
    last = _chunk(request, {}, _reason(reply))
    if reply.service_tier:
        last["service_tier"] = reply.service_tier
    yield from [event(last)] * reply.ends
    if reply.usage_so_far or (request.get("stream_options") or {}).get("include_usage"):
        usage = {**_chunk(request, {}), "choices": [], "usage": _usage(reply)}
        if reply.service_tier:
            usage["service_tier"] = reply.service_tier
        yield event(usage)
    yield b"data: [DONE]\n\n"


def _reason(reply: Reply) -> str:
    return reply.reason or ("tool_calls" if reply.tools else "stop")


def _completion(request: dict[str, Any], reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.tools:
        message["tool_calls"] = [
            _tool_call(reply, index, name, arguments)
            for index, (name, arguments) in enumerate(reply.tools)
        ]
    reason = _reason(reply)
    return {
        "id": f"chatcmpl-{time.time_ns()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": _usage(reply),
        "service_tier": reply.service_tier,
    }


def _chunk(
    request: dict[str, Any], delta: dict[str, Any], reason: str | None = None
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-stream",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


def _tool_call(reply: Reply, index: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": reply.one_id or f"call_{time.time_ns()}_{index}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    }


def _counts(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _usage(reply: Reply) -> Any:
    if reply.usage is not None:
        return reply.usage
    usage = _counts(reply.prompt_tokens, reply.completion_tokens)
    if reply.cache_read_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": reply.cache_read_tokens}
    if reply.reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reply.reasoning_tokens}
    return usage


def _response(request: dict[str, Any], reply: Reply, *, done: bool = True) -> dict[str, Any]:
    output: list[dict[str, Any]] = _searches(reply)
    if reply.text:
        text = {"type": "output_text", "text": reply.text, "annotations": []}
        output.append(
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        )
    for index, (name, arguments) in enumerate(reply.tools):
        output.append(
            {
                "type": "function_call",
                "id": f"fc_{index}",
                "call_id": f"call_{time.time_ns()}_{index}",
                "name": name,
                "arguments": json.dumps(arguments),
                "status": "completed",
            }
        )
    return {
        "id": f"resp_{time.time_ns()}",
        "object": "response",
        "created_at": int(time.time()),
        "model": request["model"],
        "status": ("incomplete" if reply.reason else "completed") if done else "in_progress",
        "incomplete_details": {"reason": reply.reason} if done and reply.reason else None,
        "error": None,
        "output": output if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": reply.service_tier,
        "usage": _response_usage(reply) if done else None,
    }


def _searches(reply: Reply) -> list[dict[str, Any]]:
    """A search for each query, and a page that was opened after the last one."""
    actions: list[dict[str, Any]] = [{"type": "search", "query": each} for each in reply.queries]
    if actions:
        actions.append({"type": "open_page", "url": "https://example.org/"})
    return [
        {"type": "web_search_call", "id": f"ws_{n}", "status": "completed", "action": action}
        for n, action in enumerate(actions)
    ]


def _response_usage(reply: Reply) -> Any:
    if reply.usage is not None:
        return reply.usage
    return {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"cached_tokens": reply.cache_read_tokens or 0},
        "output_tokens": reply.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens or 0},
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }


def _response_opening(request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
    number = 0

    def numbered(body: dict[str, Any]) -> bytes:
        nonlocal number
        number += 1
        return event({"sequence_number": number, **body})

    started = _response(request, reply, done=False)
    yield numbered({"type": "response.created", "response": started})
    for index, item in enumerate(_searches(reply)):
        yield numbered({"type": "response.output_item.done", "output_index": index, "item": item})
    for word in words(reply):
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        yield numbered(
            {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
        )
    for item in _response(request, reply)["output"]:
        if item["type"] == "function_call":
            index = int(bool(reply.text))
            yield numbered(
                {
                    "type": "response.output_item.added",
                    "output_index": index,
                    "item": {**item, "arguments": "", "status": "in_progress"},
                }
            )
            yield numbered(
                {
                    "type": "response.function_call_arguments.delta",
                    "output_index": index,
                    "item_id": item["id"],
                    "delta": item["arguments"],
                }
            )
