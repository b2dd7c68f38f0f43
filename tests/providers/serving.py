"""What the loopback providers share: a script of replies, a log, and the HTTP below."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@dataclass(frozen=True)
class Recording:
    """A body that another provider once sent, to be sent again as it is."""

    body: bytes
    content_type: str


@dataclass(frozen=True)
class Reply:
    """One scripted answer."""

    text: str = ""
    tools: tuple[tuple[str, dict[str, Any]], ...] = ()
    prompt_tokens: int = 10
    """All of the prompt, cached tokens included."""
    completion_tokens: int = 5
    """All of the completion, reasoning included."""
    status: int = 200
    cut: bool = False
    """End the connection in mid-stream, after the text and before the usage."""
    hold: threading.Event | None = None
    """Wait for this before the end of the answer (streams: after the text)."""
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage: Mapping[str, Any] | None = None
    """The usage block, word for word, instead of one made of the counts."""
    usage_so_far: bool = False
    """Streams: state the usage with every piece, as it grows."""
    pause: float = 0.0
    """Seconds before each piece of the answer."""
    reason: str | None = None
    """Why the answer ended, where that is not its natural end: `length`, `content_filter`."""
    one_id: str | None = None
    """Of all the tool calls, where they have no ids of their own: OpenAI's chat completions."""
    ends: int = 1
    """Streams of OpenAI: how often its end is said."""
    service_tier: str | None = None
    queries: tuple[str, ...] = ()
    """What it searches the web for on the way: OpenAI's Responses and Gemini."""
    recording: Recording | None = None


@dataclass
class Provider:
    """A running provider: its address, what it was asked, what it answers next."""

    base_url: str
    script: list[Reply] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    billed: list[Reply] = field(default_factory=list)
    """Answers that were given with their usage: what a real provider would charge."""
    bill: list[tuple[str, int, int]] = field(default_factory=list)
    """The same as model, prompt and completion tokens."""
    failed: int = 0
    """Requests that were answered with an error."""
    answer: Callable[[dict[str, Any]], Reply] | None = None
    """Replies by what is asked, where they can't be scripted in order."""
    arrived: threading.Event = field(default_factory=threading.Event)

    def reply(self, request: dict[str, Any]) -> Reply:
        self.requests.append(request)
        self.arrived.set()
        if self.script:
            return self.script.pop(0)
        return self.answer(request) if self.answer else Reply("All right.")

    def charge(self, request: dict[str, Any], reply: Reply) -> None:
        self.billed.append(reply)
        self.bill.append((request.get("model", ""), reply.prompt_tokens, reply.completion_tokens))

    def refund(self, request: dict[str, Any], reply: Reply) -> None:
        self.billed.remove(reply)
        self.bill.remove((request.get("model", ""), reply.prompt_tokens, reply.completion_tokens))


class Handler(BaseHTTPRequestHandler):
    """One protocol: subclasses say what its answers look like."""

    protocol_version = "HTTP/1.1"
    base_path: ClassVar[str] = ""
    stream_type: ClassVar[str] = "text/event-stream"

    def wants_stream(self, request: dict[str, Any]) -> bool:
        return bool(request.get("stream"))

    def failure(self, reply: Reply) -> dict[str, Any]:
        """The body of an error."""
        raise NotImplementedError

    def answer(self, request: dict[str, Any], reply: Reply) -> dict[str, Any]:
        """The body of an answer that isn't streamed."""
        raise NotImplementedError

    def opening(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        """A stream up to the end of the text and the tool calls."""
        raise NotImplementedError

    def closing(self, request: dict[str, Any], reply: Reply) -> Iterator[bytes]:
        """The rest of a stream, with the usage."""
        raise NotImplementedError

    def do_POST(self) -> None:
        body = self.rfile.read(length := int(self.headers["Content-Length"]))
        if len(body) < length:
            self.close_connection = True  # whoever asked is gone
            return
        request = json.loads(body)
        assert isinstance(self.server, _Server)
        provider = self.server.provider
        reply = provider.reply(request)
        try:
            if reply.recording is not None:
                self._send(reply.status, reply.recording.body, reply.recording.content_type)
            elif reply.status != 200:
                provider.failed += 1
                self._send_json(reply.status, self.failure(reply))
            elif self.wants_stream(request):
                self._stream(provider, request, reply)
            else:
                if reply.hold is not None:
                    reply.hold.wait(30)
                time.sleep(reply.pause)
                provider.charge(request, reply)
                self._send_json(200, self.answer(request, reply))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send_json(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, data: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        # No client keeps a connection, which it would leave to the garbage collector.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, provider: Provider, request: dict[str, Any], reply: Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", self.stream_type)
        # Without a length the end of the connection would pass for the end of the answer.
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in self.opening(request, reply):
            self._piece(piece, reply)
        if reply.hold is not None:
            reply.hold.wait(30)
        if reply.cut:
            return
        # Charged first: a client may look at the bill as soon as it has the last byte.
        provider.charge(request, reply)
        try:
            for piece in self.closing(request, reply):
                self._piece(piece, reply)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            provider.refund(request, reply)
            raise

    def _piece(self, piece: bytes, reply: Reply) -> None:
        time.sleep(reply.pause)
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.flush()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Quiet: the requests are in `provider.requests`."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Room for a burst of clients; the default of 5 resets connections.
    request_queue_size = 256

    def __init__(self, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.provider = Provider(f"http://127.0.0.1:{self.server_address[1]}{handler.base_path}")


@contextmanager
def serving(handler: type[Handler]) -> Iterator[Provider]:
    """Starts a provider on a free port of loopback."""
    server = _Server(handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def event(body: dict[str, Any], name: str | None = None) -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(body)}\n\n".encode()


def words(reply: Reply) -> list[str]:
    return [word + " " for word in reply.text.split(" ")] if reply.text else []


def grown(reply: Reply) -> Iterator[int]:
    """The completion's count as it grows, a step for every word."""
    count = len(words(reply))
    return (max(1, reply.completion_tokens * (i + 1) // count) for i in range(count))
