"""A provider that speaks OpenAI's chat completions, answers by script and logs its bill.

https://platform.openai.com/docs/api-reference/chat
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One scripted answer."""

    text: str = ""
    tools: tuple[tuple[str, dict[str, Any]], ...] = ()
    prompt_tokens: int = 10
    completion_tokens: int = 5
    status: int = 200
    cut: bool = False
    """End the connection in mid-stream, after the text and before the usage."""
    hold: threading.Event | None = None
    """Wait for this before the end of the answer (streams: after the text)."""


@dataclass
class Provider:
    """A running provider: its address, what it was asked, what it answers next."""

    base_url: str
    script: list[Reply] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    billed: list[Reply] = field(default_factory=list)
    """Answers that were given with their usage: what a real provider would charge."""
    arrived: threading.Event = field(default_factory=threading.Event)

    def reply(self, request: dict[str, Any]) -> Reply:
        self.requests.append(request)
        self.arrived.set()
        return self.script.pop(0) if self.script else Reply("All right.")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Room for a burst of clients; the default of 5 resets connections.
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.provider = Provider(f"http://127.0.0.1:{self.server_address[1]}/v1")


@contextmanager
def running() -> Iterator[Provider]:
    """Starts a provider on a free port of loopback."""
    server = _Server(("127.0.0.1", 0), _Handler)
    provider = server.provider
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(length))
        assert isinstance(self.server, _Server)
        provider = self.server.provider
        reply = provider.reply(request)
        if reply.status != 200:
            self._send(
                reply.status,
                {"error": {"message": "scripted failure", "type": "server_error", "code": None}},
            )
        elif request.get("stream"):
            self._stream(provider, request, reply)
        else:
            if reply.hold is not None:
                reply.hold.wait(30)
            provider.billed.append(reply)
            self._send(200, _completion(request, reply))

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _stream(self, provider: Provider, request: dict[str, Any], reply: Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for word in reply.text.split(" "):
                self._event(_chunk(request, {"role": "assistant", "content": word + " "}))
            for index, (name, arguments) in enumerate(reply.tools):
                self._event(
                    _chunk(request, {"tool_calls": [_tool_call(index, name, arguments, True)]})
                )
            if reply.hold is not None:
                reply.hold.wait(30)
            if reply.cut:
                return
            self._event(_chunk(request, {}, "tool_calls" if reply.tools else "stop"))
            if (request.get("stream_options") or {}).get("include_usage"):
                self._event({**_chunk(request, {}), "choices": [], "usage": _usage(reply)})
            provider.billed.append(reply)
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            return

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Quiet: the requests are in `provider.requests`."""


def _completion(request: dict[str, Any], reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.tools:
        message["tool_calls"] = [
            _tool_call(index, name, arguments, False)
            for index, (name, arguments) in enumerate(reply.tools)
        ]
    reason = "tool_calls" if reply.tools else "stop"
    return {
        "id": f"chatcmpl-{time.time_ns()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": _usage(reply),
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


def _tool_call(index: int, name: str, arguments: dict[str, Any], streamed: bool) -> dict[str, Any]:
    call: dict[str, Any] = {
        "id": f"call_{time.time_ns()}_{index}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    }
    return {"index": index, **call} if streamed else call


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }
