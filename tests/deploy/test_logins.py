"""The logins of logins.sql: each process runs with the rights it is given there, and no more."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.server.processes import process, served

from .test_grafana import QUERIES, sent

LOGINS = Path(__file__).parents[2] / ".github" / "deploy" / "logins.sql"
NAMES = {"SERVER": "chatter_server", "WORKER": "chatter_upkeep", "READER": "chatter_grafana"}

pytestmark = pytest.mark.skipif(shutil.which("psql") is None, reason="there is no psql here")


@pytest.fixture
def logins(url: str, db: psycopg.Connection[Any]) -> Iterator[dict[str, str]]:
    """The address of each login."""
    passwords = {f"{name}_PASSWORD": f"of the {name.lower()}'s" for name in NAMES}
    subprocess.run(
        ["psql", "-X", "-q", "-d", url, "-f", LOGINS], env={**os.environ, **passwords}, check=True
    )
    place = f"{db.info.host}:{db.info.port}/{db.info.dbname}"
    yield {
        login: f"postgresql://{login}:of%20the%20{name.lower()}%27s@{place}"
        for name, login in NAMES.items()
    }
    for login in NAMES.values():
        db.execute(sql.SQL("drop role {}").format(sql.Identifier(login)))


async def test_the_server_and_the_worker_do_their_work_with_their_logins(
    logins: dict[str, str], url: str, db: psycopg.Connection[Any]
) -> None:
    async with (
        process(logins["chatter_server"], "serve", "--port", "0", "--no-worker") as serve,
        process(logins["chatter_upkeep"], "worker") as worker,
    ):
        server = await served(serve)
        await worker.says("Working")
        async with httpx.AsyncClient(base_url=server.address, timeout=30) as http:
            http.headers["Authorization"] = f"Bearer {server.key}"
            made = await http.post(
                "/api/auth/users", json={"user": "ada", "password": "correct horse battery staple"}
            )
            assert made.status_code == 201, made.text
            async with httpx.AsyncClient(base_url=server.address, timeout=30) as hers:
                who = {"user": "ada", "password": "correct horse battery staple"}
                assert (await hers.post("/api/auth/login", json=who)).status_code == 200
                conversation = (await hers.post("/api/conversations", json={})).json()["id"]
                answer = await hers.post(
                    f"/api/conversations/{conversation}/messages",
                    json={"content": "What is 6 * 7?"},
                )
                assert answer.json()["content"] == "The calculate tool says: 42."
                own = (await hers.get("/api/overview")).json()
            parts = (await http.get("/api/breakdown")).json()
            assert (await http.get("/readyz")).status_code == 200
        assert sum(row["calls"] for row in own["over_time"]) == 2
        assert [row["user"] for row in parts["users"]] == ["ada"]
        # The worker's doing: nothing waits any more, and the views have it.
        async with asyncio.timeout(60), await psycopg.AsyncConnection.connect(url) as waiting:
            await waiting.set_autocommit(True)
            done = (
                "select exists (select from analytics.usage_daily where calls = 2) "
                "and not exists (select from analytics.deltas)"
            )
            while True:
                found = await (await waiting.execute(done)).fetchone()
                if found is not None and found[0]:
                    break
                await asyncio.sleep(0.1)

    with psycopg.connect(logins["chatter_grafana"], autocommit=True) as reader:
        now = db.execute("select chatter.clock() - interval '1 day', chatter.clock()").fetchone()
        assert now is not None
        shown = reader.execute(sent(QUERIES["Models"][0], *now).encode()).fetchall()
        assert [row[2] for row in shown] == [2]


@pytest.mark.parametrize(
    ("login", "refused"),
    [
        ("chatter_server", "update chatter.conversations set total_cost = 0"),
        ("chatter_server", "delete from chatter.messages"),
        ("chatter_server", "select analytics.fold(1)"),
        ("chatter_server", "insert into chatter.prices default values"),
        ("chatter_upkeep", "select content from chatter.messages"),
        ("chatter_upkeep", "insert into chatter.conversations default values"),
        ("chatter_grafana", "select content from chatter.messages"),
        ("chatter_grafana", "select title from chatter.conversations"),
        ("chatter_grafana", "select hash from chatter.passwords"),
        ("chatter_grafana", "create table chatter.mine ()"),
    ],
)
def test_no_login_may_do_more(logins: dict[str, str], login: str, refused: str) -> None:
    with (
        psycopg.connect(logins[login], autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(refused.encode())


@pytest.mark.parametrize(
    "given", [{}, {"SERVER_PASSWORD": "a", "WORKER_PASSWORD": "", "READER_PASSWORD": "b"}]
)
def test_no_login_is_made_without_a_password(url: str, given: dict[str, str]) -> None:
    others = {k: v for k, v in os.environ.items() if not k.endswith("_PASSWORD")}
    done = subprocess.run(
        ["psql", "-X", "-q", "-d", url, "-f", LOGINS],
        env={**others, **given},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "a password is missing" in done.stderr
    assert "SERVER_PASSWORD, WORKER_PASSWORD and READER_PASSWORD" in done.stderr
    with psycopg.connect(url) as connection:
        made = connection.execute(
            "select from pg_roles where rolname = any(%s)", (list(NAMES.values()),)
        )
        assert made.fetchall() == []
