"""What /readyz and /metrics say: of requests, of the books, and while Postgres is away."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg
import pytest
from langchain_core.messages import HumanMessage
from prometheus_client.parser import text_string_to_metric_families as families
from psycopg import sql

from chatter_db import Chatter
from tests.polling import until
from tests.providers.openai import Provider
from tests.recorder.test_recorder import agent, model_of
from tests.server.conftest import Person, Site, serving


@pytest.fixture
def outside(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """An autocommit connection to the same server, of another database."""
    with psycopg.connect(f"{url.rsplit('/', 1)[0]}/postgres", autocommit=True) as connection:
        yield connection


@contextmanager
def away(url: str, outside: psycopg.Connection[tuple[object, ...]]) -> Iterator[None]:
    """The database ends all its connections and takes no new one."""
    name = url.rsplit("/", 1)[1]
    allow = sql.SQL("alter database {} allow_connections {}")
    outside.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
    outside.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
    )
    try:
        yield
    finally:
        outside.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


async def figures(http: httpx.AsyncClient) -> dict[str, float]:
    """What /metrics says that has no labels."""
    told = await http.get("/metrics")
    return {
        sample.name: sample.value
        for family in families(told.text)
        for sample in family.samples
        if not sample.labels
    }


async def test_an_outage_is_told_and_what_waits_for_its_end(
    site: Site,
    chatter: Chatter,
    url: str,
    outside: psycopg.Connection[tuple[object, ...]],
    provider: Provider,
) -> None:
    http = site.client()
    well = {
        "chatter_executions_running": 0.0,
        "chatter_records_lost": 0.0,
        "chatter_records_reduced": 0.0,
        "chatter_spooled_bytes": 0.0,
        "chatter_database_up": 1.0,
    }
    assert await figures(http) == well
    assert (await http.get("/readyz")).json() == {"status": "ok", "reasons": []}
    with away(url, outside):
        await agent(model_of(provider)).ainvoke(
            {"messages": [HumanMessage("Hi")]}, {"callbacks": [chatter.recorder()]}
        )
        ill = await figures(http)
        assert ill.pop("chatter_spooled_bytes") > 0
        assert math.isnan(ill.pop("chatter_executions_running"))
        assert ill == {
            "chatter_records_lost": 0.0,
            "chatter_records_reduced": 0.0,
            "chatter_database_up": 0.0,
        }
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unwell")
        assert (await http.get("/healthz")).json() == {"status": "ok", "reasons": []}
    await until(lambda: not chatter.spooled_bytes)
    assert await figures(http) == well


async def test_a_slow_database_is_told_and_keeps_no_request_from_its_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatter_db.monitoring.SLOW_DATABASE_MS", 0)
    ready = await site.client().get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    assert ready.json()["reasons"][0].startswith("Postgres took ")


async def test_a_lost_record_is_told_and_keeps_no_request_from_its_answer(
    url: str, db: psycopg.Connection[tuple[object, ...]], provider: Provider
) -> None:
    db.execute("alter table chatter.messages add check (not model_call)")
    async with Chatter.connect(url) as chatter, serving(chatter) as address:
        await agent(model_of(provider)).ainvoke(
            {"messages": [HumanMessage("Hi")]}, {"callbacks": [chatter.recorder()]}
        )
        async with httpx.AsyncClient(base_url=address) as http:
            assert (await figures(http))["chatter_records_lost"] == 1
            ready = await http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ok"
    assert ready.json()["reasons"] == ["1 record(s) of this process were lost; see its log."]


async def test_requests_are_counted_under_their_route_and_never_under_an_id(ada: Person) -> None:
    for _ in range(2):
        await ada.http.get("/api/conversations/00000000-0000-0000-0000-000000000001")
    told = (await ada.http.get("/metrics")).text
    counted = 'route="/api/conversations/{conversation_id}",status="404"} 2.0'
    assert f'chatter_http_requests_total{{method="GET",{counted}' in told
    assert "00000000" not in told
