"""One id through request, run, calls, events, logs and answer."""

import re
from contextvars import ContextVar

from langchain_core.utils.uuid import uuid7
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Correlation-ID"

# Printable, without blanks: it goes into logs and headers as it is.
_GOOD = re.compile(r"[\x21-\x7e]{1,200}")

current: ContextVar[str | None] = ContextVar("correlation_id", default=None)
"""The correlation id of the request that is being answered."""


class Correlation:
    """Takes the id from the request's header, or makes one, and puts it into the answer's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        correlation_id = given if _GOOD.fullmatch(given) else str(uuid7())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = correlation_id
            await send(message)

        token = current.set(correlation_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            current.reset(token)


def correlation_id() -> str:
    """The correlation id of the request that is being answered."""
    found = current.get()
    assert found is not None, "asked for outside a request"
    return found
