"""The server process: uvicorn on the app, ending cleanly with streams open."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chatter_db.accounts import Accounts
from chatter_db.analytics import Worker
from chatter_db.errors import UsageError
from chatter_db.ledger import Chatter
from chatter_db.server.app import create_app
from chatter_db.server.logs import LOGGING
from chatter_db.server.sse import Streams

IDLE_SECONDS = 75
"""How long a connection may be idle: longer than clients (httpx: 5 s) and proxies (nginx: 60 s)
keep theirs, so that none sends a request into a connection that is being closed."""

GRACE_SECONDS = 10
"""How long a chat may go on after the server was told to stop."""

CLIENT_GONE_MS = 60_000
"""A client whose machine vanished, or that takes nothing, is given up after so long."""

MAX_HEAD_BYTES = 64 * 1024
"""How much is gathered of a request's line and headers, or of trailers, that have no end yet."""


class Protocol(HttpToolsProtocol):
    """uvicorn's, which would gather a head without end, and copy all of it for each piece.

    So are trailers, which come after a body.
    """

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.logger.warning("A head of more than %d bytes was refused.", MAX_HEAD_BYTES)
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response(f"A head may have {MAX_HEAD_BYTES:,} bytes at most.")
            else:
                self.transport.close()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()


class Server(uvicorn.Server):
    """uvicorn, which would wait for open event streams for ever."""

    def __init__(self, config: uvicorn.Config, chatter: Chatter, streams: Streams) -> None:
        super().__init__(config)
        self._chatter = chatter
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.shut()
        await self._chatter.close_events()
        await super().shutdown(sockets)
        await self._streams.close()


def server(chatter: Chatter, *, worker: Worker | None = None, access_log: bool = True) -> Server:
    """A server for an open `chatter`; give `serve` the sockets to listen on.

    The app tells when `worker`, which works beside it, gets nothing done.
    """
    app = create_app(chatter)
    app.state.worker = worker
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_config=LOGGING if access_log else None,
        access_log=access_log,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=IDLE_SECONDS,
        server_header=False,
    )
    return Server(config, chatter, app.state.streams)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, with `::` on every network of IPv4, too.

    Raises UsageError if it can't be had.
    """
    is_ipv6 = ":" in host
    try:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if is_ipv6 else socket.AF_INET,
            backlog=2048,
            dualstack_ipv6=is_ipv6 and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise UsageError(
            f"Can't listen on {host} port {port}: {error.strerror}. Choose another with --port."
        ) from None
    # Accepted connections inherit these. Nagle's algorithm would hold back the end of an answer for
    # 40 ms, and asyncio switches it off only for sockets that name their protocol.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CLIENT_GONE_MS)
    return listener


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop: uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def serve(
    chatter: Chatter,
    host: str,
    port: int,
    *,
    worker: bool,
    ready: Callable[[str, str | None, bool], None],
) -> None:
    """Serves until told to stop; with `worker`, does the background work too.

    `ready` is called with the address, with the secret of the first API key if there
    was no admin yet and one was made, and with whether there is an admin now.
    """
    listener = listen(host, port)
    accounts = Accounts(chatter)
    secret = await first_key(accounts)
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{listener.getsockname()[1]}", secret, await accounts.has_admin())
    working = Worker(chatter.url, chatter.event_hub()) if worker else None
    background = asyncio.create_task(working.persist()) if working else None
    try:
        await server(chatter, worker=working).serve([listener])
    finally:
        if working and background:
            working.stop()
            await background


async def first_key(accounts: Accounts) -> str | None:
    """The secret of a new API key of a new user `admin`, if there is neither an admin nor a user
    of that name: who has the name doesn't get the rights."""
    if await accounts.has_admin():
        return None
    try:
        admin = await accounts.create_user("admin", role="admin")
    except UsageError:  # there is one, or another process was first
        return None
    return (await accounts.keys.create(admin.user_id, "first key")).secret
