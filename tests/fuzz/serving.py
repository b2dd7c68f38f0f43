"""The real server in a thread of its own, and requests that are sent as they are written."""

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

import pytest

from chatter_db import Chatter
from chatter_db.accounts import Accounts
from chatter_db.settings import settings
from tests.server.conftest import PASSWORD, serving

SHOWN = 200

SECONDS = 30.0
"""How long an answer may take."""

NO_LIMITS = {
    "CHATTER_REQUESTS_PER_MINUTE": "1000000000",
    "CHATTER_STREAMS_PER_USER": "1000",
    "CHATTER_CHATS_PER_USER": "1000",
}


@dataclass(frozen=True)
class Request:
    """A request as it goes over the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Log(logging.Handler):
    """Keeps what the server logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.errors.append(logging.Formatter().format(record))


@dataclass
class Server:
    """A server, the API keys of an admin and of a user, and what it has logged."""

    address: str
    admin: str
    user: str
    log: Log = field(default_factory=Log)

    def ask(self, request: Request) -> Answer:
        """Sends a request. Of an event stream only the beginning is read."""
        connection = HTTPConnection(urlsplit(self.address).netloc, timeout=SECONDS)
        try:
            connection.putrequest(
                request.method, request.target, skip_accept_encoding=True, skip_host=False
            )
            for name, value in request.headers:
                connection.putheader(name, value.encode("latin-1"))
            if request.body is not None:
                connection.putheader("Content-Length", str(len(request.body)))
            # A body may be refused before all of it was sent.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(request.body)
            return _read(connection.getresponse(), request)
        finally:
            connection.close()

    def assert_nothing_logged(self) -> None:
        errors, self.log.errors = self.log.errors, []
        assert not errors, f"logged: {errors[0].splitlines()[-1][:SHOWN]}"

    def is_alive(self) -> bool:
        return self.ask(Request("GET", "/readyz")).status == 200


def _read(response: HTTPResponse, request: Request) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    endless = request.target.startswith("/api/events") and response.status == 200
    return Answer(response.status, headers, b"" if endless else response.read())


REFUSED_BY_CLIENT = (HTTPException, ValueError)
"""What Python's client doesn't send at all."""


@contextmanager
def server(url: str) -> Iterator[Server]:
    """A server on the books at `url`, with an admin and a user who have one conversation each."""
    started = threading.Event()
    stop: asyncio.Event
    loop: asyncio.AbstractEventLoop
    running: list[Server] = []
    failed: list[BaseException] = []

    async def run() -> None:
        nonlocal stop, loop
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with Chatter.connect(url) as chatter, serving(chatter) as address:
            accounts = Accounts(chatter)
            secrets = []
            for name, role in (("root", "admin"), ("ada", "user")):
                made = await accounts.create_user(
                    name, password=PASSWORD, role="admin" if role == "admin" else "user"
                )
                await chatter.create_conversation(user=name, title="The first")
                secrets.append((await accounts.keys.create(made.user_id, "fuzz")).secret)
            running.append(Server(address, secrets[0], secrets[1]))
            started.set()
            await stop.wait()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            failed.append(error)
        finally:
            started.set()

    with pytest.MonkeyPatch.context() as patched:
        for name, value in NO_LIMITS.items():
            patched.setitem(os.environ, name, value)
        settings.cache_clear()
        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        try:
            if not running:
                raise failed[0]
            logging.getLogger().addHandler(running[0].log)
            try:
                yield running[0]
            finally:
                logging.getLogger().removeHandler(running[0].log)
        finally:
            if running:
                loop.call_soon_threadsafe(stop.set)
            thread.join()
            settings.cache_clear()
        if failed:
            raise failed[0]
