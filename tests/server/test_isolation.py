"""The server's sessions act for who is signed in: a forgotten condition leaks nothing."""

from typing import Any
from uuid import uuid4

import httpx
from sqlalchemy import func, select

from chatter_db import Chatter
from chatter_db.models import ApiKey, Conversation, User

from .conftest import Person

PUBLIC = ("/healthz", "/readyz", "/metrics", "/api/auth/login", "/api/auth/logout")
"""Asked without a key, or ends what the others need."""
ONE_S_OWN = ("/api/events",)
"""Streams, which tests/server/test_events.py reads."""
BODIES: dict[str, Any] = {
    "/api/conversations/{conversation_id}/messages": {"content": "Whose is it?"},
}


async def test_a_session_without_a_condition_meets_one_s_own_rows(
    chatter: Chatter, ada: Person, bob: Person, admin: Person
) -> None:
    for person in (ada, bob):
        (await person.http.post("/api/conversations", json={})).raise_for_status()
    async with chatter.session(acting_for=ada.identity.acts_for) as session:
        # Two transactions of one session: both act for her.
        for _ in range(2):
            found = await session.scalars(select(Conversation.user_id))
            assert found.all() == [ada.identity.user_id]
            assert (await session.scalars(select(User.id))).all() == [ada.identity.user_id]
            assert (await session.scalars(select(ApiKey.user_id))).all() == [ada.identity.user_id]
            await session.commit()
    async with chatter.session(acting_for=admin.identity.acts_for) as session:
        owners = set(await session.scalars(select(Conversation.user_id)))
    assert owners >= {ada.identity.user_id, bob.identity.user_id}


async def test_the_pool_s_connections_are_nobody_s_afterwards(
    chatter: Chatter, ada: Person, bob: Person
) -> None:
    async with chatter.session(acting_for=ada.identity.user_id) as session:
        assert await session.scalar(select(func.count()).select_from(User)) == 1
    async with chatter.session() as session:
        assert await session.scalar(select(func.chatter.acting_user())) is None
        users = set(await session.scalars(select(User.id)))
    assert users >= {ada.identity.user_id, bob.identity.user_id}


async def test_no_route_tells_another_s_from_what_is_not_there(
    ada: Person, bob: Person, admin: Person
) -> None:
    """Every route of the API's own description, so that none is forgotten."""
    made = await bob.http.post("/api/conversations", json={"title": "a secret of bob's"})
    conversation = made.json()["id"]
    said = await bob.http.post(
        f"/api/conversations/{conversation}/messages",
        json={"content": "bob's question"},
        headers={"X-Correlation-ID": "bobs-request", "Idempotency-Key": "bobs-key"},
    )
    keys = (await bob.http.get("/api/auth/keys")).json()
    his = {
        "conversation_id": conversation,
        "execution_id": said.raise_for_status().json()["execution_id"],
        "correlation_id": "bobs-request",
        "key_id": keys[0]["id"],
    }
    marks = {*his.values(), str(bob.identity.user_id), said.json()["message_id"], "bob's"}
    before = await belongings(bob)

    described = (await admin.http.get("/openapi.json")).raise_for_status().json()
    tried = 0
    for path, operations in described["paths"].items():
        if path in (*PUBLIC, *ONE_S_OWN):
            continue
        for method, operation in operations.items():
            named = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
            theirs = {name: his.get(name, "cost_by_user") for name in named}
            nobodys = {name: str(uuid4()) if name in his else theirs[name] for name in named}
            answers = [
                await ada.http.request(
                    method,
                    path.format(**values),
                    json=BODIES.get(path, {}) if "requestBody" in operation else None,
                    headers={"Idempotency-Key": "bobs-key"},
                )
                for values in (theirs, nobodys)
            ]
            if named and set(named) <= his.keys():
                assert heard(answers[0], theirs) == heard(answers[1], nobodys), path
                assert answers[0].status_code == 404, path
                tried += 1
            for answer, values in zip(answers, (theirs, nobodys), strict=True):
                told = [mark for mark in marks - set(values.values()) if mark in answer.text]
                assert told == [], path
    assert tried >= 8
    assert await belongings(bob) == before


def heard(answer: httpx.Response, values: dict[str, str]) -> tuple[int, str]:
    """Status and body, the ids that were asked for and the request's own blanked out."""
    text = answer.text
    for value in (*values.values(), answer.headers.get("X-Correlation-ID", "")):
        if value:
            text = text.replace(value, "an id")
    return answer.status_code, text


async def belongings(person: Person) -> list[Any]:
    """What a user sees of what is theirs."""
    paths = ("/api/conversations", "/api/executions", "/api/auth/keys", "/api/auth/me")
    told = [(await person.http.get(path)).raise_for_status().json() for path in paths]
    for key in told[2]:
        key.pop("last_used_at", None)
    return told
