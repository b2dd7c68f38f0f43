"""Errors as problem JSON (RFC 9457): what is wrong, where, and what to do."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from chatter_db.database import passes, sqlstate
from chatter_db.errors import (
    DatabaseUnavailable,
    RecordingFailed,
    SignInBlocked,
    SignInRefused,
    UsageError,
)
from chatter_db.server import correlation
from chatter_db.server.headers import GUARDS

log = logging.getLogger(__name__)

_NUL = "22021"
"""Postgres's word for a byte that its text can't hold; of UTF-8 that is only NUL."""


class Problem(BaseModel):
    """A problem, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    correlation_id: str | None = None


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> ProblemResponse:
    """An answer that says what is wrong. `more` become members of its own."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        correlation_id=correlation.current.get(),
        **more,
    )
    return ProblemResponse(body.model_dump(mode="json"), status, headers=dict(headers or {}))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for its OpenAPI description."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "model": Problem,
            "content": {ProblemResponse.media_type: {"schema": schema}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Answers every error of `app` with a problem."""

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> ProblemResponse:
        return problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> ProblemResponse:
        # Where and what, but not the value: it may be a password.
        errors = [
            {"where": ".".join(str(part) for part in e["loc"]), "what": e["msg"]}
            for e in error.errors()
        ]
        detail = "; ".join(f"{e['where']}: {e['what']}" for e in errors)
        return problem(422, detail, errors=errors)

    @app.exception_handler(UsageError)
    async def _(request: Request, error: UsageError) -> ProblemResponse:
        return problem(422, str(error))

    @app.exception_handler(SignInRefused)
    async def _(request: Request, error: SignInRefused) -> ProblemResponse:
        return problem(401, str(error))

    @app.exception_handler(SignInBlocked)
    async def _(request: Request, error: SignInBlocked) -> ProblemResponse:
        seconds = max(1, ceil((error.until - datetime.now(UTC)).total_seconds()))
        return problem(429, str(error), headers={"Retry-After": str(seconds)})

    @app.exception_handler(DatabaseUnavailable)
    async def _(request: Request, error: DatabaseUnavailable) -> ProblemResponse:
        log.error("Postgres did not answer: %s", error)
        return problem(503, "The database does not answer.", headers={"Retry-After": "5"})

    @app.exception_handler(RecordingFailed)
    async def _(request: Request, error: RecordingFailed) -> ProblemResponse:
        return problem(503, str(error), headers={"Retry-After": "5"})

    @app.exception_handler(DBAPIError)
    async def _(request: Request, error: DBAPIError) -> ProblemResponse:
        return _of_postgres(error)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> ProblemResponse:
        # Starlette's own middleware logs the traceback after this, and is outside of all others.
        return problem(500, "The server has failed; see its log.", headers=GUARDS)


def _of_postgres(error: DBAPIError) -> ProblemResponse:
    """What a statement that failed means for who asked."""
    state = sqlstate(error)
    if error.connection_invalidated or passes(state or ""):
        log.error("Postgres can't take it now: %s %s", state, type(error).__name__)
        return problem(
            503, "The database can't take this now; try again.", headers={"Retry-After": "5"}
        )
    if state == _NUL:
        return problem(422, "Text can't hold the character NUL.")
    log.exception("A query failed")
    return problem(500, "A query failed; see the server's log.", sqlstate=state)
