"""A provider that speaks Ollama's chat.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from tests.providers.serving import Handler, Provider, Reply, serving, words


def running() -> AbstractContextManager[Provider]:
    """Starts a provider on a free port of loopback."""
    return serving(_Handler)


class _Handler(Handler):
    stream_type = "application/x-ndjson"

    def wants_stream(self, request: dict[str, Any]) -> bool:
        return bool(request.get("stream", True))

    def failure(self, reply: Reply) -> dict[str, Any]:
        return {"error": "scripted failure"}

    def answer(self, request: dict[str, Any], reply: Reply) -> dict[str, Any]:
        return _line(request, reply.text, reply.tools) | _end(reply)

    def opening(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        for word in words(reply):
            yield _written(_line(request, word))
        if reply.tools:
            yield _written(_line(request, "", reply.tools))

    def closing(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        yield _written(_line(request, "") | _end(reply))


def _written(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _line(
    request: dict[str, Any], text: str, tools: tuple[tuple[str, dict[str, Any]], ...] = ()
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if tools:
        message["tool_calls"] = [
            {"function": {"name": name, "arguments": arguments}} for name, arguments in tools
        ]
    return {
        "model": request["model"],
        "created_at": "2026-01-01T00:00:00Z",
        "message": message,
        "done": False,
    }


def _end(reply: Reply) -> dict[str, Any]:
    counts: Any = reply.usage
    if counts is None:
        counts = {"prompt_eval_count": reply.prompt_tokens, "eval_count": reply.completion_tokens}
    return {"done": True, "done_reason": "stop", "total_duration": 5_000_000_000, **counts}
