"""What /docs describes is what the server does: no request gets an answer that isn't there."""

import asyncio
import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.conftest import Site

# More by CHATTER_TEST_EXAMPLES=1000, for as long as that takes.
EXAMPLES = int(os.environ.get("CHATTER_TEST_EXAMPLES", "15"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Streams for ever; tests/server/test_events.py listens to it.
ENDLESS = {("GET", "/api/events")}
# Sends away who asks.
ENDING = {("POST", "/api/auth/logout"), ("POST", "/api/auth/password")}


@pytest.mark.parametrize("role", ["admin", "user", None])
async def test_no_request_gets_an_answer_that_is_not_described(site: Site, role: Any) -> None:
    headers = {}
    if role is not None:
        person = await site.person("ada", role)
        made = await person.http.post("/api/conversations", json={"title": "A first one"})
        assert made.status_code == 201
        headers["Authorization"] = f"Bearer {person.secret}"
    tried = await asyncio.to_thread(_try_all, site.address, headers)
    assert len(tried) > 20
    assert min(tried.values()) > 0


def _try_all(address: str, headers: dict[str, str]) -> dict[str, int]:
    schema: Any = schemathesis.openapi.from_url(f"{address}/openapi.json")
    tried: dict[str, int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        if (operation.method.upper(), operation.path) not in ENDLESS | ENDING:
            tried[operation.label] = _try(operation, headers)
    return tried


def _try(operation: Any, headers: dict[str, str]) -> int:
    count = 0

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        nonlocal count
        count += 1
        case.call_and_validate(checks=CHECKS, headers=headers)

    ask()
    return count


async def test_text_that_postgres_cannot_hold_is_the_client_s_mistake(site: Site) -> None:
    person = await site.person("ada")
    answer = await person.http.post("/api/auth/keys", json={"name": "a\0b"})
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "The name of a key must have 1 to 200 characters and no NUL; it has 3.",
    )
