"""Everybody who uses the books: apps, chat clients, writers and readers."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import psycopg
from psycopg.errors import (
    DeadlockDetected,
    LockNotAvailable,
    QueryCanceled,
    SerializationFailure,
)

from tests.chaos.known import Answered, Known, Row, cost

LOCK_TIMEOUT = timedelta(milliseconds=500)
STATEMENT_TIMEOUT = timedelta(milliseconds=900)
TRY_AGAIN = (SerializationFailure, DeadlockDetected, LockNotAvailable, QueryCanceled)

WRITE_PAUSE_SECONDS = 0.15
CHAT_PAUSE_SECONDS = 0.3
PATIENCE_SECONDS = 30.0
"""How long a chat client asks for an answer with one key."""
CONFLICT_SECONDS = 5.0
"""How long it does so while it is told that the answer is being made."""


def limited(url: str, **limits: timedelta) -> str:
    """`url` with limits of a session such as lock_timeout."""
    options = " ".join(f"-c {k}={v / timedelta(milliseconds=1):.0f}" for k, v in limits.items())
    return f"{url}?options={quote(options)}"


def hear_app(known: Known, name: str, line: str) -> None:
    """Takes an answer down that an app says it has."""
    try:
        said = json.loads(line)
    except ValueError:
        return  # not an answer, or cut off by the app's end: then it promised nothing
    calls = tuple(prompt for prompt, _ in said["calls"])
    completion = sum(completion for _, completion in said["calls"])
    known.answer(
        name,
        Answered(
            UUID(said["execution"]),
            said["question"],
            said["answer"],
            sum(calls),
            completion,
            cost(sum(calls), completion),
            calls,
        ),
    )


@dataclass
class Writer:
    """Writes messages with SQL of its own; tries again where Postgres asks for that."""

    name: str
    url: str
    isolation: psycopg.IsolationLevel
    conversations: Sequence[UUID]
    known: Known
    dice: random.Random

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with await psycopg.AsyncConnection.connect(
                    self.url, application_name="chaos writer", connect_timeout=10
                ) as connection:
                    await connection.set_isolation_level(self.isolation)
                    while not stop.is_set():
                        await self._transact(connection, self._rows(), stop)
                        await asyncio.sleep(self.dice.random() * WRITE_PAUSE_SECONDS)
            except psycopg.OperationalError as error:
                self.known.refused[error.sqlstate or "connection"] += 1
                await asyncio.sleep(0.05)

    def _rows(self) -> list[Row]:
        count = self.dice.choice((1, 1, 2, 3))
        return [self._row(place) for place in sorted(self.dice.sample(self.conversations, count))]

    def _row(self, conversation: UUID) -> Row:
        prompt, completion = self.dice.randint(1, 9999), self.dice.randint(1, 999)
        return Row(uuid4(), conversation, prompt, completion, cost(prompt, completion))

    async def _transact(
        self, connection: psycopg.AsyncConnection[Any], rows: list[Row], stop: asyncio.Event
    ) -> None:
        while True:
            try:
                if self.known.clock is not None:
                    await jump(connection, self.known.clock)
                for row in rows:
                    await insert(connection, row)
                if self.dice.random() < 0.1:
                    await asyncio.sleep(self.dice.random() * 0.05)
            except TRY_AGAIN as error:
                await self._retry(connection, error)
                if stop.is_set():
                    self.known.roll_back(rows)
                    return
            except psycopg.Error:
                self.known.roll_back(rows)  # it never came to its commit
                raise
            else:
                break
        if self.dice.random() < 0.1:
            self.known.roll_back(rows)
            await connection.rollback()
            return
        try:
            await connection.commit()
        except psycopg.Error:
            self.known.unknown.append(rows)
            raise
        self.known.commit(self.name, rows)

    async def _retry(
        self, connection: psycopg.AsyncConnection[Any], error: psycopg.OperationalError
    ) -> None:
        self.known.refused[str(error.sqlstate)] += 1
        await connection.rollback()
        await asyncio.sleep(self.dice.random() * 0.02)


async def insert(connection: psycopg.AsyncConnection[Any], row: Row) -> None:
    """Writes a row as a program of one's own would."""
    await connection.execute(
        "insert into chatter.messages (id, conversation_id, role, kind, provider_used, model_used,"
        " prompt_tokens, completion_tokens, cost, cost_source) "
        "values (%s, %s, 'assistant', 'step', 'direct', 'direct-1', %s, %s, %s, 'provider')",
        [row.id, row.conversation, row.prompt_tokens, row.completion_tokens, row.cost],
    )


async def jump(connection: psycopg.AsyncConnection[Any], offset: timedelta) -> None:
    """Stops the clock of the books, for this transaction, at a time that is off."""
    await connection.execute(
        "select set_config('chatter.frozen_clock', (clock_timestamp() + %s)::text, true)", [offset]
    )


@dataclass
class Client:
    """A chat client that asks with an Idempotency-Key, anew until it is answered."""

    name: str
    addresses: list[str | None]
    secret: str
    conversations: Sequence[UUID]
    known: Known
    dice: random.Random

    async def run(self, stop: asyncio.Event) -> None:
        headers = {"Authorization": f"Bearer {self.secret}"}
        async with httpx.AsyncClient(headers=headers, timeout=60) as http:
            while not stop.is_set():
                given_up = await self._ask(http, f"{self.name} {uuid4()}")
                if given_up is not None:
                    self.known.given_up[given_up] += 1
                await asyncio.sleep(self.dice.random() * CHAT_PAUSE_SECONDS)

    async def _ask(self, http: httpx.AsyncClient, question: str) -> str | None:
        """Asks until there is an answer; why it gave up if there is none."""
        key = {"Idempotency-Key": str(uuid4())}
        path = f"/api/conversations/{self.dice.choice(self.conversations)}/messages"
        loop = asyncio.get_running_loop()
        deadline, conflicts_until = loop.time() + PATIENCE_SECONDS, float("inf")
        why = "no server"
        while loop.time() < deadline:
            address = self.dice.choice(self.addresses)
            if address is None:
                await asyncio.sleep(0.05)
                continue
            try:
                answer = await http.post(
                    f"{address}{path}", json={"content": question}, headers=key
                )
            except httpx.TransportError as error:
                why = type(error).__name__
                await asyncio.sleep(0.05)
                continue
            self.known.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                self.known.answer(self.name, _answered(question, answer.json()))
                return None
            why = str(answer.status_code)
            if answer.status_code == 409:
                why = f"409 {answer.json()['detail']}"
                conflicts_until = min(conflicts_until, loop.time() + CONFLICT_SECONDS)
                if "being answered" not in why or loop.time() > conflicts_until:
                    return why
            elif answer.status_code not in (500, 502, 503):
                raise AssertionError(f"{answer.status_code} to a good question: {answer.text}")
            await asyncio.sleep(0.1)
        return why


def _answered(question: str, body: dict[str, Any]) -> Answered:
    return Answered(
        UUID(body["execution_id"]),
        question,
        body["content"],
        body["prompt_tokens"],
        body["completion_tokens"],
        Decimal(body["cost"]),
        None,
    )
