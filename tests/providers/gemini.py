"""A provider that speaks Gemini's generateContent and streamGenerateContent.

https://ai.google.dev/api/generate-content
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from tests.providers.serving import Handler, Provider, Reply, event, grown, serving, words


def running() -> AbstractContextManager[Provider]:
    """Starts a provider on a free port of loopback."""
    return serving(_Handler)


class _Handler(Handler):
    def wants_stream(self, request: dict[str, Any]) -> bool:
        return "streamGenerateContent" in self.path

    def failure(self, reply: Reply) -> dict[str, Any]:
        return {
            "error": {"code": reply.status, "message": "scripted failure", "status": "INTERNAL"}
        }

    def answer(self, request: dict[str, Any], reply: Reply) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"text": reply.text}] if reply.text else []
        parts += [_call(name, arguments) for name, arguments in reply.tools]
        return _response(parts, _usage(reply), "STOP", reply.queries)

    def opening(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        # Every block replaces the one before; the first ones have the prompt alone.
        for word, count in zip(words(reply), grown(reply), strict=True):
            usage: dict[str, Any] = {
                "promptTokenCount": reply.prompt_tokens,
                "totalTokenCount": reply.prompt_tokens,
            }
            if reply.usage_so_far:
                usage["candidatesTokenCount"] = count
                usage["totalTokenCount"] += count
            yield event(_response([{"text": word}], usage))

    def closing(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        calls = [_call(name, arguments) for name, arguments in reply.tools]
        yield event(_response(calls or [{"text": ""}], _usage(reply), "STOP", reply.queries))


def _response(
    parts: list[dict[str, Any]],
    usage: Any,
    reason: str | None = None,
    queries: tuple[str, ...] = (),
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    if queries:
        candidate["groundingMetadata"] = {"webSearchQueries": list(queries)}
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r-1",
    }


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": arguments}}


def _usage(reply: Reply) -> Any:
    if reply.usage is not None:
        return reply.usage
    thoughts = reply.reasoning_tokens or 0
    usage = {
        "promptTokenCount": reply.prompt_tokens,
        "candidatesTokenCount": reply.completion_tokens - thoughts,
        "totalTokenCount": reply.prompt_tokens + reply.completion_tokens,
    }
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    if reply.cache_read_tokens:
        usage["cachedContentTokenCount"] = reply.cache_read_tokens
    return usage
