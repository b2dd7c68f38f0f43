"""Conversations over HTTP, on a real server: what is answered, streamed, booked and refused."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from starlette.requests import ClientDisconnect

from chatter_db import Chatter
from chatter_db.accounts import Accounts
from chatter_db.server import create_app
from chatter_db.server.pages import cursor
from chatter_db.settings import settings
from tests.polling import WAITS_FOR_A_LOCK, until
from tests.providers.openai import Provider
from tests.server.conftest import Person, Site, serving

QUESTION = {"content": "What is 6 * 7?"}


async def conversation(person: Person, **columns: Any) -> str:
    made = await person.http.post("/api/conversations", json=columns)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status and body["detail"]
    assert body["correlation_id"] == response.headers["x-correlation-id"]
    return body


async def test_a_question_is_answered_and_booked(
    ada: Person, books_hold: Callable[[], None]
) -> None:
    id_ = await conversation(ada, title="Sums")
    sent = await ada.http.post(f"/api/conversations/{id_}/messages", json=QUESTION)
    assert sent.status_code == 200
    answer = sent.json()
    assert answer["content"] == "The calculate tool says: 42."

    shown = (await ada.http.get(f"/api/conversations/{id_}")).json()
    assert (shown["title"], shown["message_count"]) == ("Sums", 2)
    assert Decimal(shown["total_cost"]) == Decimal(answer["cost"]) > 0
    turns = (await ada.http.get(f"/api/conversations/{id_}/messages")).json()["items"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[1]["id"] == answer["message_id"]
    rows = (await ada.http.get(f"/api/conversations/{id_}/messages?steps=true")).json()["items"]
    assert [row["role"] for row in rows] == ["user", "assistant", "tool", "assistant"]
    run = (await ada.http.get(f"/api/executions/{answer['execution_id']}")).json()
    assert (run["status"], run["model_calls"], run["tool_calls"]) == ("completed", 2, 1)
    books_hold()


async def test_the_answer_is_streamed(ada: Person) -> None:
    id_ = await conversation(ada)
    async with ada.http.stream(
        "POST",
        f"/api/conversations/{id_}/messages",
        json=QUESTION,
        headers={"Accept": "text/event-stream"},
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = [event async for event in events(response)]
    names = [name for name, _ in told]
    assert names[0] == "start" and names[-1] == "done"
    assert {"tool_call_start", "tool_call_end", "token", "usage"} <= set(names)
    assert (
        "".join(data["text"] for name, data in told if name == "token") == (told[-1][1]["content"])
    )
    booked = (await ada.http.get(f"/api/conversations/{id_}")).json()
    assert Decimal(booked["total_cost"]) == Decimal(told[-1][1]["cost"]) > 0


async def test_a_client_that_leaves_ends_the_run(
    ada: Person, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    id_ = await conversation(ada)
    async with ada.http.stream(
        "POST",
        f"/api/conversations/{id_}/messages",
        json={"content": "hello " * 2000},
        headers={"Accept": "text/event-stream"},
    ) as response:
        async for _ in events(response):
            break

    def ended() -> bool:
        found = db.execute("select status from chatter.workflow_executions").fetchone()
        return found is not None and found[0] != "running"

    await until(ended)
    books_hold()


async def test_a_key_is_paid_for_once(ada: Person, db: psycopg.Connection[Any]) -> None:
    path = f"/api/conversations/{await conversation(ada)}/messages"
    headers = {"Idempotency-Key": "try-1"}
    first = await ada.http.post(path, json=QUESTION, headers=headers)
    again = await ada.http.post(path, json=QUESTION, headers=headers)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert db.execute("select count(*) from chatter.workflow_executions").fetchone() == (1,)
    other = await ada.http.post(path, json={"content": "Something else"}, headers=headers)
    assert "another message" in assert_problem(other, 422)["detail"]


async def test_a_claim_is_of_the_process_before_its_run_begins(
    ada: Person, url: str, db: psycopg.Connection[Any]
) -> None:
    path = f"/api/conversations/{await conversation(ada)}/messages"
    claims = "select status, recorder_id is not null from chatter.workflow_executions"
    with psycopg.connect(url) as holding:
        # The run can't be booked: its process is, before it.
        holding.execute("lock table chatter.recorders in share mode")
        asking = asyncio.create_task(
            ada.http.post(path, json=QUESTION, headers={"Idempotency-Key": "try-1"})
        )
        await until(lambda: db.execute(claims).fetchall())
        assert db.execute(claims).fetchall() == [("running", True)]
    assert (await asking).status_code == 200
    assert db.execute(claims).fetchall() == [("completed", True)]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_chats_at_once_have_an_end(
    chatter: Chatter,
    url: str,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    accept: str,
) -> None:
    monkeypatch.setenv("CHATTER_CHATS_PER_USER", "1")
    settings.cache_clear()
    async with serving(chatter) as address:
        site = Site(address, Accounts(chatter), [])
        ada, bob = [await site.person(name) for name in ("ada", "bob")]
        path = f"/api/conversations/{await conversation(ada)}/messages"
        other = f"/api/conversations/{await conversation(bob)}/messages"
        with psycopg.connect(url) as holding:
            holding.execute("lock table chatter.workflow_executions in share mode")
            headers = {"Accept": accept}
            asking = asyncio.create_task(ada.http.post(path, json=QUESTION, headers=headers))
            await until(lambda: db.execute(WAITS_FOR_A_LOCK).fetchall())
            refused = await ada.http.post(path, json=QUESTION)
            assert "answered at once" in assert_problem(refused, 429)["detail"]
            assert refused.headers["retry-after"] == "5"
            another = asyncio.create_task(bob.http.post(other, json=QUESTION))
        assert [(await each).status_code for each in (asking, another)] == [200, 200]
        # Its place is free again, and that of one that can't be answered.
        wrong = await ada.http.post(path, json={**QUESTION, "model": "nobody's"})
        assert_problem(wrong, 422)
        again = await ada.http.post(path, json=QUESTION)
        assert again.status_code == 200, again.text
        for client in site.open:
            await client.aclose()


async def test_a_key_is_good_for_one_of_many_at_once(
    ada: Person, db: psycopg.Connection[Any]
) -> None:
    path = f"/api/conversations/{await conversation(ada)}/messages"
    sent = await asyncio.gather(
        *(
            ada.http.post(path, json=QUESTION, headers={"Idempotency-Key": "try-1"})
            for _ in range(8)
        )
    )
    assert {response.status_code for response in sent} <= {200, 409}
    assert 200 in {response.status_code for response in sent}
    assert db.execute("select count(*) from chatter.workflow_executions").fetchone() == (1,)


async def begin_stream(person: Person, path: str, key: str) -> asyncio.StreamWriter:
    """Asks for a streamed answer over a connection of its own, which the caller closes."""
    address = person.http.base_url
    _, connection = await asyncio.open_connection(address.host, address.port)
    body = json.dumps(QUESTION)
    head = [
        f"POST {path} HTTP/1.1",
        "Host: chatter",
        f"Authorization: Bearer {person.secret}",
        f"Idempotency-Key: {key}",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    connection.write("\r\n".join([*head, "", body]).encode())
    await connection.drain()
    return connection


async def leave(person: Person, connection: asyncio.StreamWriter) -> None:
    """Closes it; the server knows before it answers what came later."""
    connection.close()
    await connection.wait_closed()
    assert (await person.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("held", ["workflow_executions", "recorders"])
async def test_who_leaves_before_a_model_was_asked_may_ask_with_the_same_key(
    ada: Person,
    url: str,
    db: psycopg.Connection[Any],
    books_hold: Callable[[], None],
    held: str,
) -> None:
    """Held up before the claim, and before the run is booked; then the server goes on."""
    path = f"/api/conversations/{await conversation(ada)}/messages"
    with psycopg.connect(url) as holding:
        holding.execute(f"lock table chatter.{held} in share mode".encode())
        connection = await begin_stream(ada, path, "try-1")
        await until(lambda: db.execute(WAITS_FOR_A_LOCK).fetchall())
        await leave(ada, connection)
    runs = "select status, model_calls from chatter.workflow_executions order by started_at"
    await until(lambda: db.execute(runs).fetchall() == [("cancelled", 0)])
    again = await ada.http.post(path, json=QUESTION, headers={"Idempotency-Key": "try-1"})
    assert again.status_code == 200, again.text
    same = await ada.http.post(path, json=QUESTION, headers={"Idempotency-Key": "try-1"})
    assert same.json() == again.json()
    assert db.execute(runs).fetchall() == [("cancelled", 0), ("completed", 2)]
    books_hold()


async def test_a_client_that_is_gone_before_the_first_word(
    ada: Person, chatter: Chatter, db: psycopg.Connection[Any], books_hold: Callable[[], None]
) -> None:
    """As servers tell it that have ASGI's word for it: https://asgi.readthedocs.io, 2.4."""
    path = f"/api/conversations/{await conversation(ada)}/messages"
    headers = {
        "Authorization": f"Bearer {ada.secret}",
        "Accept": "text/event-stream",
        "Content-Type": "application/json",
        "Idempotency-Key": "try-1",
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(QUESTION).encode()}

    async def send(message: MutableMapping[str, Any]) -> None:
        raise OSError("The client is gone.")

    app = create_app(chatter)
    with pytest.raises((OSError, ClientDisconnect)):
        await app(scope, receive, send)
    runs = "select status, model_calls from chatter.workflow_executions order by started_at"
    await until(lambda: db.execute(runs).fetchall() == [("cancelled", 0)])
    assert db.execute("select count(*) from chatter.messages").fetchone() == (0,)
    again = await ada.http.post(path, json=QUESTION, headers={"Idempotency-Key": "try-1"})
    assert again.status_code == 200, again.text
    books_hold()


async def test_a_run_that_asked_a_model_is_not_paid_for_again(
    ada: Person, db: psycopg.Connection[Any]
) -> None:
    path = f"/api/conversations/{await conversation(ada)}/messages"
    headers = {"Idempotency-Key": "try-1"}
    assert (await ada.http.post(path, json=QUESTION, headers=headers)).status_code == 200
    # As if its client had left in the middle.
    db.execute("update chatter.messages set kind = 'step' where role = 'assistant'")
    db.execute("update chatter.workflow_executions set status = 'cancelled'")
    refused = await ada.http.post(path, json=QUESTION, headers=headers)
    assert "is cancelled. Use a new key" in assert_problem(refused, 409)["detail"]


async def test_nobody_sees_what_is_another_s(ada: Person, bob: Person, admin: Person) -> None:
    id_ = await conversation(ada)
    sent = await ada.http.post(f"/api/conversations/{id_}/messages", json=QUESTION)
    run = sent.json()["execution_id"]
    trace = sent.headers["x-correlation-id"]
    for path in (f"/api/conversations/{id_}", f"/api/conversations/{id_}/messages"):
        assert_problem(await bob.http.get(path), 404)
    assert_problem(await bob.http.delete(f"/api/conversations/{id_}"), 404)
    assert_problem(await bob.http.post(f"/api/conversations/{id_}/messages", json=QUESTION), 404)
    assert_problem(await bob.http.get(f"/api/executions/{run}"), 404)
    assert_problem(await bob.http.get(f"/api/trace/{trace}"), 404)
    for path in ("/api/conversations", "/api/executions"):
        assert (await bob.http.get(path)).json()["items"] == []
        assert len((await admin.http.get(path)).json()["items"]) == 1
    for path in (f"/api/conversations/{id_}", f"/api/executions/{run}", f"/api/trace/{trace}"):
        assert (await admin.http.get(path)).status_code == 200


async def test_one_id_from_the_header_to_the_trace(ada: Person) -> None:
    id_ = await conversation(ada)
    sent = await ada.http.post(
        f"/api/conversations/{id_}/messages",
        json=QUESTION,
        headers={"X-Correlation-ID": "request-7"},
    )
    assert sent.headers["x-correlation-id"] == "request-7"
    told = (await ada.http.get("/api/trace/request-7")).json()
    steps = [step["step"] for step in told["steps"]]
    assert steps[0] == "security event"  # the key that was used
    assert steps.count("model call") == 2
    assert Decimal(told["cost"]) == Decimal(sent.json()["cost"])


@pytest.mark.parametrize("bad", ["with blanks in it", "x" * 201, "\u00e9"])
async def test_an_id_that_would_spoil_a_log_is_replaced(ada: Person, bad: str) -> None:
    answered = await ada.http.get("/api/auth/me", headers=[(b"X-Correlation-ID", bad.encode())])
    assert answered.headers["x-correlation-id"] not in {"", bad}


async def listed(person: Person) -> list[Any]:
    """The conversations of a person's list, read by pages of two."""
    seen: list[str] = []
    after = None
    while True:
        query = {"limit": 2, **({"after": after} if after else {})}
        page = (await person.http.get("/api/conversations", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            return seen


async def test_lists_come_in_pages(ada: Person) -> None:
    made = [await conversation(ada, title=str(number)) for number in range(5)]
    assert await listed(ada) == made[::-1]


async def test_who_spoke_last_is_first_and_an_admin_s_list_is_by_their_beginnings(
    ada: Person, admin: Person, db: psycopg.Connection[Any]
) -> None:
    first, second, third = [await conversation(ada) for _ in range(3)]
    # As an import makes it: of long ago, with an id of today.
    [old] = db.execute(
        "insert into chatter.conversations (external_id, user_id, created_at) "
        "select 'old', user_id, '2020-01-01' from chatter.conversations where id = %s "
        "returning id::text",
        (first,),
    ).fetchall()
    await ada.http.post(f"/api/conversations/{second}/messages", json=QUESTION)
    assert await listed(ada) == [second, third, first, *old]
    assert await listed(admin) == [third, second, first, *old]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_messages_come_in_pages(ada: Person, newest_first: bool) -> None:
    path = f"/api/conversations/{await conversation(ada)}/messages"
    await ada.http.post(path, json=QUESTION)
    whole = (await ada.http.get(path, params={"steps": True})).json()["items"]
    seen: list[Any] = []
    after = None
    while True:
        query = {"steps": True, "limit": 1, "newest_first": newest_first}
        query |= {"after": after} if after else {}
        page = (await ada.http.get(path, params=query)).json()
        seen += page["items"]
        after = page["next"]
        if after is None:
            break
    assert seen == (whole[::-1] if newest_first else whole) and len(seen) == 4


async def test_a_page_of_long_messages_ends_earlier(
    ada: Person, db: psycopg.Connection[Any]
) -> None:
    id_ = await conversation(ada)
    db.execute(
        "insert into chatter.messages (conversation_id, role, content, tool_calls) "
        "select %s, 'assistant', repeat(n::text, case n when 7 then 1 else 300000 end), "
        "case n when 7 then jsonb_build_array(repeat('called', 500000)) end "
        "from generate_series(1, 9) as n",
        [id_],
    )
    path, after, told = f"/api/conversations/{id_}/messages?limit=200", "", []
    while True:
        page = (await ada.http.get(path + after)).json()
        told.append("".join(item["content"][0] for item in page["items"]))
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert told == ["123", "456", "7", "89"]


async def test_erasing_keeps_the_cost(ada: Person) -> None:
    id_ = await conversation(ada, title="Sums")
    await ada.http.post(f"/api/conversations/{id_}/messages", json=QUESTION)
    before = (await ada.http.get(f"/api/conversations/{id_}")).json()
    assert (await ada.http.delete(f"/api/conversations/{id_}")).status_code == 204
    after = (await ada.http.get(f"/api/conversations/{id_}")).json()
    assert (after["title"], after["status"]) == (None, "deleted")
    assert after["total_cost"] == before["total_cost"] != "0"
    turns = (await ada.http.get(f"/api/conversations/{id_}/messages")).json()["items"]
    assert {turn["content"] for turn in turns} == {None}
    assert (await ada.http.get("/api/conversations")).json()["items"] == []
    assert_problem(await ada.http.post(f"/api/conversations/{id_}/messages", json=QUESTION), 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"content": ""}, 422),
        ({"content": "   "}, 422),
        ({"content": "\x1c"}, 422),  # white space to Python, and not to a pattern
        ({"content": "a\0b"}, 422),
        ({"content": 7}, 422),
        ({"content": "hello", "model": "nonsense"}, 422),
        ({"content": "x" * 100_001}, 422),
        ({"content": "x" * 2_000_000}, 413),
    ],
)
async def test_a_message_that_can_not_be(
    ada: Person, db: psycopg.Connection[Any], body: dict[str, Any], status: int
) -> None:
    id_ = await conversation(ada)
    for _ in range(2):  # with the same key, which it has not used up
        refused = await ada.http.post(
            f"/api/conversations/{id_}/messages", json=body, headers={"Idempotency-Key": "try-1"}
        )
        assert_problem(refused, status)
    assert db.execute("select count(*) from chatter.messages").fetchone() == (0,)
    assert db.execute("select count(*) from chatter.workflow_executions").fetchone() == (0,)


@pytest.mark.long
async def test_a_provider_that_is_down_is_told_and_the_run_is_booked_as_failed(
    ada: Person,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    books_hold: Callable[[], None],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("CHATTER_MODELS", "openai:gpt-4o-mini")
    settings.cache_clear()
    path = f"/api/conversations/{await conversation(ada)}/messages"
    question = QUESTION | {"model": "openai:gpt-4o-mini"}
    told = assert_problem(await ada.http.post(path, json=question), 502)
    assert told["detail"].startswith("The model failed: ")
    assert told["detail"].endswith("The run is booked as failed.")
    streaming = {"Accept": "text/event-stream"}
    async with ada.http.stream("POST", path, json=question, headers=streaming) as response:
        names = [name async for name, _ in events(response)]
    assert names[0] == "start"
    assert names[-1] == "error"
    runs = "select status, error_type is not null, total_cost from chatter.workflow_executions"
    assert db.execute(runs).fetchall() == [("failed", True, 0)] * 2
    books_hold()


@pytest.mark.parametrize(
    ("models", "wanted", "allowed"),
    [
        (None, "openai:o1-pro", "openai:gpt-4o-mini or offline"),
        (None, "gpt-4o-mini", "openai:gpt-4o-mini or offline"),
        (None, "offline", None),
        (" openai:gpt-4o , offline,", "openai:o1-pro", "openai:gpt-4o-mini or openai:gpt-4o or"),
        (" openai:gpt-4o , offline,", "offline", None),
        ("openai:gpt-4o", "offline", "openai:gpt-4o-mini or openai:gpt-4o."),
    ],
)
async def test_only_models_that_the_server_allows_are_asked_with_its_keys(
    ada: Person,
    admin: Person,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    models: str | None,
    wanted: str,
    allowed: str | None,
) -> None:
    monkeypatch.setenv("CHATTER_MODEL", "openai:gpt-4o-mini")
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    if models is not None:
        monkeypatch.setenv("CHATTER_MODELS", models)
    settings.cache_clear()
    path = f"/api/conversations/{await conversation(ada)}/messages"
    for person in (ada, admin):
        answer = await person.http.post(path, json=QUESTION | {"model": wanted})
        if allowed is None:
            assert answer.status_code == 200, answer.text
        else:
            assert allowed in assert_problem(answer, 422)["detail"]
    runs = db.execute("select count(*) from chatter.workflow_executions").fetchone()
    assert runs == (0 if allowed else 2,)


async def test_the_server_s_own_model_may_be_named_whatever_is_listed(
    ada: Person, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATTER_MODELS", "openai:gpt-4o")
    settings.cache_clear()
    path = f"/api/conversations/{await conversation(ada)}/messages"
    for named in ({"model": "offline"}, {}):
        assert (await ada.http.post(path, json=QUESTION | named)).status_code == 200


@pytest.mark.parametrize("path", ["/api/auth/login", "/api/conversations"])
@pytest.mark.parametrize(("kilobytes", "status"), [(1024, 422), (1025, 413)])
async def test_a_body_of_no_announced_length_is_counted(
    ada: Person, db: psycopg.Connection[Any], path: str, kilobytes: int, status: int
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(kilobytes):
            yield b"x" * 1024

    refused = await ada.http.post(
        path, content=body(), headers={"Content-Type": "application/json"}
    )
    assert_problem(refused, status)
    assert db.execute("select count(*) from chatter.conversations").fetchone() == (0,)


async def test_what_is_no_request(ada: Person) -> None:
    id_ = await conversation(ada)
    path = f"/api/conversations/{id_}/messages"
    assert_problem(
        await ada.http.post(path, content=b"{", headers={"Content-Type": "application/json"}), 422
    )
    assert_problem(await ada.http.get(f"/api/conversations/{uuid4()}"), 404)
    assert_problem(await ada.http.get("/api/conversations/nonsense"), 422)
    assert_problem(await ada.http.get("/api/nonsense"), 404)
    assert_problem(await ada.http.put("/api/conversations"), 405)
    for query in ({"limit": 0}, {"limit": -1}, {"limit": 1000}, {"after": "nonsense"}):
        assert_problem(await ada.http.get("/api/conversations", params=query), 422)
        assert_problem(await ada.http.get("/api/executions", params=query), 422)
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        beyond = {"after": cursor(moment, uuid4())}
        assert_problem(await ada.http.get("/api/executions", params=beyond), 422)


@pytest.mark.parametrize("state", ["53100", "57014", "40P01", "55P03", "40001"])
async def test_what_postgres_takes_when_tried_again_is_not_our_failure(
    ada: Person, db: psycopg.Connection[Any], state: str
) -> None:
    db.execute(
        "create function public.refuse() returns trigger language plpgsql as "
        f"$$ begin raise exception 'not now' using errcode = '{state}'; end $$"
    )
    db.execute(
        "create trigger refuse before insert on chatter.conversations "
        "for each row execute function public.refuse()"
    )
    refused = await ada.http.post("/api/conversations", json={})
    assert_problem(refused, 503)
    assert refused.headers["Retry-After"] == "5"


async def test_the_cost_of_an_answer_without_a_price_is_not_0(
    ada: Person, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the answer is given once more."""
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("CHATTER_MODELS", "openai:nobody-1")
    settings.cache_clear()
    path = f"/api/conversations/{await conversation(ada)}/messages"
    question = QUESTION | {"model": "openai:nobody-1"}
    for _ in range(2):
        answer = await ada.http.post(path, json=question, headers={"Idempotency-Key": "1"})
        assert (answer.json()["prompt_tokens"], answer.json()["cost"]) == (10, None)
    assert len(provider.requests) == 1
