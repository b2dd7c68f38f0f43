"""GET /api/events: real clients on a real server."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg
import pytest

from chatter_db import Chatter
from chatter_db.server import sse
from chatter_db.settings import settings
from tests.polling import WAITS_FOR_A_LOCK, until
from tests.server.conftest import PASSWORD, Person, Site, serving


@dataclass
class Told:
    """One block of a stream, as the WHATWG rules read it."""

    event: str
    data: dict[str, Any]
    id: str


class Stream:
    """What a client of the stream has read."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments: list[str] = []
        self.retry: str | None = None
        self.told: list[Told] = []
        self._lines = response.aiter_lines()

    async def next(self, event: str | None = None) -> Told:
        """The next event, of that name if one is given."""
        async with asyncio.timeout(20):
            fields: dict[str, str] = {}
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments.append(line[1:].strip())
                elif line:
                    name, _, value = line.partition(": ")
                    assert name not in fields
                    fields[name] = value
                elif "data" in fields:
                    told = Told(fields["event"], json.loads(fields["data"]), fields["id"])
                    fields = {}
                    self.told.append(told)
                    if event in (None, told.event):
                        return told
                else:
                    self.retry = fields.pop("retry", self.retry)
                    assert not fields, "a block without data but with an id confuses clients"
        raise AssertionError("the stream has ended")

    async def end(self) -> None:
        async with asyncio.timeout(20):
            async for _ in self._lines:
                pass


@asynccontextmanager
async def stream(
    client: httpx.AsyncClient,
    header: str | None = None,
    query: dict[str, str] | None = None,
    **filters: str,
) -> AsyncIterator[Stream]:
    headers = {} if header is None else {"Last-Event-ID": header}
    query = filters if query is None else query
    async with client.stream("GET", "/api/events", params=query, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield Stream(response)


async def conversation_of(person: Person) -> str:
    made = await person.http.post("/api/conversations", json={})
    assert made.status_code == 201
    return str(made.json()["id"])


async def test_what_happens_is_told_as_it_is_committed(ada: Person) -> None:
    async with stream(ada.http, category="conversation") as told:
        assert (await told.next()).event == "position"
        assert told.retry == "1000"
        conversation = await conversation_of(ada)
        created = await told.next()
    assert created.event == created.data["event_type"] == "conversation_created"
    assert created.data["conversation_id"] == conversation
    assert created.id == created.data["position"]


async def test_a_chat_is_told_from_start_to_end(ada: Person) -> None:
    conversation = await conversation_of(ada)
    async with stream(ada.http, conversation_id=conversation) as told:
        await told.next("position")
        answer = await ada.http.post(
            f"/api/conversations/{conversation}/messages",
            json={"content": "What is 6 * 7?"},
            headers={"X-Correlation-ID": "one-chat"},
        )
        assert answer.status_code == 200
        await told.next("workflow_completed")
    kinds = [t.event for t in told.told]
    assert kinds[1] == "workflow_started"
    assert {"model_response", "tool_called", "conversation_updated"} <= set(kinds)
    assert {t.data["correlation_id"] for t in told.told[1:] if t.data["execution_id"]} == {
        "one-chat"
    }
    assert "6 * 7" not in str(told.told)


async def test_a_reader_goes_on_after_what_it_had(ada: Person) -> None:
    async with stream(ada.http, category="conversation") as told:
        begun = await told.next("position")
        for _ in range(4):
            await conversation_of(ada)
        events = [await told.next() for _ in range(4)]
    ids = [event.data["id"] for event in events]
    begin = {"category": "conversation", "last_event_id": begun.id}
    for header, query, expected in (
        (begun.id, {"category": "conversation"}, ids),
        (None, begin, ids),
        # A browser reconnects to the same address, with the header of its last event.
        (events[2].id, begin, ids[3:]),
    ):
        async with stream(ada.http, header, query) as told:
            assert [(await told.next()).data["id"] for _ in expected] == expected


async def test_a_database_that_goes_away_is_not_our_failure(
    ada: Person, url: str, db: psycopg.Connection[Any]
) -> None:
    position = db.execute("select chatter.events_now()").fetchone()
    assert position is not None
    with psycopg.connect(url) as holder:
        holder.execute("lock table chatter.event_stream in access exclusive mode")
        asked = asyncio.create_task(
            ada.http.get("/api/events", headers={"Last-Event-ID": str(position[0])})
        )
        ended = f"select pg_terminate_backend(pid) from ({WAITS_FOR_A_LOCK}) as waiting"
        await until(lambda: db.execute(ended.encode()).fetchall())
    answer = await asked
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"


async def test_a_restart_of_the_server_loses_nothing(chatter: Chatter, url: str) -> None:
    async with serving(chatter) as address:
        site = Site(address, accounts_of(chatter), [])
        ada = await site.person("ada")
        async with stream(ada.http) as told:
            begun = await told.next("position")
            closing = asyncio.get_running_loop().time()
    # The stream was ended by the server, and soon.
    assert asyncio.get_running_loop().time() - closing < 5
    await chatter.create_conversation(user="ada")
    async with serving(chatter) as address:
        client = httpx.AsyncClient(base_url=address, headers=ada.http.headers)
        async with stream(client, begun.id) as told:
            assert (await told.next()).event == "conversation_created"
        await client.aclose()
    for client in site.open:
        await client.aclose()


def accounts_of(chatter: Chatter) -> Any:
    from chatter_db.accounts import Accounts

    return Accounts(chatter)


async def test_open_streams_end_with_the_server(chatter: Chatter) -> None:
    before = asyncio.all_tasks()
    async with serving(chatter) as address:
        site = Site(address, accounts_of(chatter), [])
        ada = await site.person("ada")
        opened = ada.http.stream("GET", "/api/events")
        told = Stream(await opened.__aenter__())
        await told.next("position")
        ending = asyncio.create_task(told.end())
        await asyncio.sleep(0)
    await ending  # in order, not as a broken connection
    await opened.__aexit__(None, None, None)
    await ada.http.aclose()
    # Nor does anything outlast it that would use the connections once more.
    assert asyncio.all_tasks() - {ending} == before


async def test_a_stream_that_comes_while_the_server_ends_is_refused(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hear nothing of the end, and hold it up."""
    refused: list[httpx.Response] = []
    async with serving(chatter) as address:
        site = Site(address, accounts_of(chatter), [])
        ada = await site.person("ada")
        close_events = Chatter.close_events

        async def and_one_more(self: Chatter) -> None:
            await close_events(self)
            refused.append(await ada.http.get("/api/events"))

        monkeypatch.setattr(Chatter, "close_events", and_one_more)
    [answer] = refused
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "This server is about to end."
    await ada.http.aclose()


async def test_people_hear_of_themselves_and_admins_of_all(
    ada: Person, bob: Person, admin: Person
) -> None:
    async with (
        stream(ada.http, category="conversation") as hers,
        stream(admin.http, category="conversation") as all_,
    ):
        await hers.next("position")
        await all_.next("position")
        await conversation_of(bob)
        own = await conversation_of(ada)
        assert (await hers.next("conversation_created")).data["conversation_id"] == own
        assert (await all_.next("conversation_created")).data["user_id"] == str(
            bob.identity.user_id
        )
    assert len(hers.told) == 2
    refused = await ada.http.get("/api/events", params={"user_id": str(bob.identity.user_id)})
    assert refused.status_code == 403
    his = {"user_id": str(bob.identity.user_id), "type": "conversation_created"}
    async with stream(admin.http, query=his) as told:
        await told.next("position")
        await conversation_of(ada)
        await conversation_of(bob)
        assert (await told.next()).data["user_id"] == his["user_id"]


async def test_a_browser_needs_no_token_in_the_address(site: Site, ada: Person) -> None:
    browser = site.client()
    assert (await browser.get("/api/events")).status_code == 401
    signed_in = await browser.post("/api/auth/login", json={"user": "ada", "password": PASSWORD})
    assert signed_in.status_code == 200
    async with stream(browser) as told:
        assert (await told.next()).event == "position"


@pytest.mark.parametrize(
    ("end", "of"),
    [
        ("update chatter.api_keys set revoked_at = now()", "key"),
        ("update chatter.api_keys set expires_at = now()", "key"),
        ("delete from chatter.api_keys", "key"),
        ("update chatter.browser_sessions set revoked_at = now()", "cookie"),
        ("update chatter.browser_sessions set expires_at = now()", "cookie"),
        ("update chatter.users set role = 'user'", "both"),
    ],
)
async def test_a_stream_ends_with_what_it_was_asked_for_with(
    site: Site, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, end: str, of: str
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.01)
    root = await site.person("root", role="admin")
    browser = site.client()
    signed_in = await browser.post("/api/auth/login", json={"user": "root", "password": PASSWORD})
    assert signed_in.status_code == 200
    async with stream(root.http) as by_key, stream(browser) as by_cookie:
        streams = {"key": by_key, "cookie": by_cookie}
        for told in streams.values():
            await told.next("position")
        db.execute(end.encode())
        for ended in list(streams) if of == "both" else [of]:
            await streams.pop(ended).end()  # in order
        await site.accounts.create_user("ada")
        for told in streams.values():
            assert (await told.next("account_created")).data["category"] == "security"


async def test_a_new_password_ends_the_streams_of_browsers(
    site: Site, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.01)
    browser = site.client()
    await browser.post("/api/auth/login", json={"user": "ada", "password": PASSWORD})
    change = {"old": PASSWORD, "new": "another good password"}
    async with stream(browser) as told, stream(ada.http, type="password_changed") as by_key:
        for each in (told, by_key):
            await each.next("position")
        assert (await ada.http.post("/api/auth/password", json=change)).status_code == 204
        await told.end()
        await by_key.next("password_changed")


async def test_streams_outlast_a_postgres_that_can_not_be_asked(
    ada: Person,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.01)
    db.execute("alter table chatter.browser_sessions rename to elsewhere")
    async with stream(ada.http) as told:
        await told.next("position")
        await until(lambda: caplog.text.count("can't be looked at") >= 3)
        db.execute("alter table chatter.elsewhere rename to browser_sessions")
        await conversation_of(ada)
        await told.next("conversation_created")
        db.execute("update chatter.api_keys set revoked_at = now()")
        await told.end()


@pytest.mark.parametrize(
    ("query", "header", "status"),
    [
        ({}, "nonsense", 400),
        ({}, "0123456789ab.5:5:", 400),
        ({"last_event_id": "nonsense"}, None, 400),
        ({"last_event_id": "a\0b"}, None, 400),
        ({"type": "nonsense"}, None, 422),
        ({"category": "nonsense"}, None, 422),
        ({"conversation_id": "nonsense"}, None, 422),
        ({"colour": "red"}, None, 422),
    ],
)
async def test_what_cant_be_is_refused_before_the_stream(
    ada: Person, query: dict[str, str], header: str | None, status: int
) -> None:
    headers = {} if header is None else {"Last-Event-ID": header}
    answer = await ada.http.get("/api/events", params=query, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


async def test_a_reader_whom_retention_has_passed_by_is_reset(
    ada: Person, db: psycopg.Connection[Any]
) -> None:
    async with stream(ada.http) as told:
        begun = await told.next("position")
        await conversation_of(ada)
        await told.next()
    db.execute("select chatter.prune_events(chatter.clock())")
    async with stream(ada.http, begun.id, category="conversation") as told:
        reset = await told.next()
        assert reset.event == "reset"
        assert reset.data == {"position": reset.id}
        await conversation_of(ada)
        assert (await told.next()).event == "conversation_created"


async def test_a_stream_ends_where_the_database_became_another(
    ada: Person, db: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As after a restore; what the client is told when it comes again is the problem itself."""
    async with stream(ada.http) as told:
        begun = await told.next("position")
        db.execute("select chatter.renew_event_stream()")
        db.execute("insert into chatter.conversations default values")  # rings
        with pytest.raises(AssertionError, match="the stream has ended"):
            await told.next()
    refused = await ada.http.get("/api/events", headers={"Last-Event-ID": begun.id})
    assert refused.status_code == 400
    assert "Exception in ASGI application" not in caplog.text
    async with stream(ada.http) as told:
        await told.next("position")
        made = await conversation_of(ada)
        assert (await told.next("conversation_created")).data["conversation_id"] == str(made)


async def test_too_many_streams_are_refused_before_they_begin(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATTER_STREAMS_PER_USER", "1")
    monkeypatch.setenv("CHATTER_MAX_STREAMS", "2")
    settings.cache_clear()
    async with serving(chatter) as address:
        site = Site(address, accounts_of(chatter), [])
        ada, bob, carl = [await site.person(name) for name in ("ada", "bob", "carl")]
        async with stream(ada.http):
            refused = await ada.http.get("/api/events")
            assert refused.status_code == 429
            assert "Retry-After" in refused.headers
            async with stream(bob.http):
                full = await carl.http.get("/api/events")
                assert full.status_code == 503
                assert full.json()["title"] == "Service Unavailable"
        async with asyncio.timeout(20):  # the place is free again soon after it was left
            while (await may_follow(ada)) is False:
                await asyncio.sleep(0.01)
        for client in site.open:
            await client.aclose()


async def may_follow(person: Person) -> bool:
    async with person.http.stream("GET", "/api/events") as response:
        return response.status_code == 200


async def test_silence_is_filled_with_comments(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(sse, "TICK_SECONDS", 0.01)
    async with stream(ada.http) as told:
        await told.next("position")
        await asyncio.sleep(0.1)
        await conversation_of(ada)
        await told.next("conversation_created")
    assert told.comments.count("heartbeat") >= 1


async def test_streams_that_begin_when_none_is_open_are_looked_after_too(
    chatter: Chatter, ada: Person, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("HEARTBEAT", 0.02), ("TICK", 0.01), ("CHECK", 0.01)):
        monkeypatch.setattr(sse, f"{name}_SECONDS", seconds)
    async with stream(ada.http) as told:
        await told.next("position")
    streams = served(chatter)
    await until(lambda: not streams())
    await asyncio.sleep(0.2)  # what looks after streams has nothing to do, and ends
    async with stream(ada.http) as told:
        await told.next("position")
        async with asyncio.timeout(20):
            while "heartbeat" not in told.comments:
                await asyncio.sleep(0.1)
                await conversation_of(ada)
                await told.next("conversation_created")
        db.execute("update chatter.api_keys set revoked_at = now()")
        await told.end()


async def test_a_stream_to_which_nothing_happens_is_told_where_it_is(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else retention would pass by the position that its client comes back with."""
    for name, seconds in (("HEARTBEAT", 0.02), ("TICK", 0.01), ("POSITION", 0.05)):
        monkeypatch.setattr(sse, f"{name}_SECONDS", seconds)
    async with stream(ada.http, category="alert") as told:
        begun = await told.next("position")
        await conversation_of(ada)
        async with asyncio.timeout(20):
            while (await told.next("position")).id == begun.id:
                pass


async def test_a_client_that_never_reads_is_let_go(
    chatter: Chatter,
    monkeypatch: pytest.MonkeyPatch,
    db: psycopg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not as soon as others hear a heartbeat, and however long it has been there."""
    now = time.monotonic()
    monkeypatch.setattr(sse, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(sse, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(sse, "POSITION_SECONDS", 0.0)
    async with serving(chatter) as address:
        site = Site(address, accounts_of(chatter), [])
        admin = await site.person("root", role="admin")
        host, port = address.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            client.sendall(
                b"GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + admin.secret.encode()
                + b"\r\n\r\n"
            )
            streams = served(chatter)
            await until(lambda: streams() == 1)
            async with stream(admin.http, category="alert") as other:
                await other.next("position")
                for _ in range(3):
                    now += sse.HEARTBEAT_SECONDS + 1
                    await other.next("position")
                # Off the live feed, for good: nothing more goes into its socket.
                behind = 0
                while behind < 10:
                    behind = 0 if streams() == 2 else behind + 1
                    if not behind:
                        db.execute(
                            "insert into chatter.conversations (title) "
                            "select n::text from generate_series(1, 2000) as n"
                        )
                    await asyncio.sleep(0.02)
                now += sse.HEARTBEAT_SECONDS + 1
                await other.next("position")
                assert "it was let go" not in caplog.text
                now += sse.HEARTBEAT_SECONDS
                await until(lambda: "it was let go" in caplog.text)
                await other.next("position")
        await admin.http.aclose()


def served(chatter: Chatter) -> Any:
    """How many read the events of this process."""
    hub = chatter.event_hub()
    return lambda: sum(len(members) for members in hub._groups.values())
