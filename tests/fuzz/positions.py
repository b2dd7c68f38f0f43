"""Positions in the events, random and mutated: refused with 400, or read as what they say.

What a position means is told independently, from its snapshots: all that it has not seen comes,
in order, once. It is read on in small steps from every position that is given on the way.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, LiteralString
from urllib.parse import quote

import psycopg
from hypothesis import strategies as st

from tests.fuzz import nonsense
from tests.fuzz.serving import REFUSED_BY_CLIENT, Request, Server, server
from tests.fuzz.tally import Outcome, Tally, Tell, drive

HTTP_SHARE = 10
"""Of so many positions one is sent as Last-Event-ID too."""

TRANSACTIONS = 12


@dataclass(frozen=True)
class Snapshot:
    """Which transactions are seen, as Postgres's manual has it for pg_snapshot."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def of(cls, written: str) -> "Snapshot":
        xmin, xmax, running = written.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(x) for x in running.split(",") if x))

    def sees(self, transaction: int) -> bool:
        return transaction < self.xmin or (
            transaction < self.xmax and transaction not in self.running
        )


@dataclass(frozen=True)
class Tried:
    """A position, how many events are read at a time, and whether it goes over HTTP as well."""

    position: str
    limit: int
    http: bool


@st.composite
def mutated(draw: st.DrawFn, own: list[str]) -> str:
    """A position that was given out, with digits, parts and separators changed."""
    position = draw(st.sampled_from(own))
    for _ in range(draw(st.integers(0, 3))):
        parts = position.split(".")
        at = draw(st.integers(0, len(position)))
        match draw(st.sampled_from(["digit", "digit", "cut", "insert", "part", "cross", "number"])):
            case "digit":
                position = position[:at] + draw(st.sampled_from("0123456789")) + position[at + 1 :]
            case "cut":
                position = position[:at]
            case "insert":
                position = position[:at] + draw(st.sampled_from(PIECES)) + position[at:]
            case "part":
                parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(PARTS))
                position = ".".join(parts)
            case "cross":
                other = draw(st.sampled_from(own)).split(".")
                position = ".".join([*parts[:2], *other[1:2], draw(st.sampled_from(["0", "5"]))])
            case "number":
                numbers = list(re.finditer(r"\d+", position))
                found = numbers[draw(st.integers(0, len(numbers) - 1))] if numbers else None
                if found:
                    new = max(0, int(found[0]) + draw(st.integers(-3, 3)))
                    position = f"{position[: found.start()]}{new}{position[found.end() :]}"
    return position


PIECES = ["0", "9" * 20, ".", ":", ",", ",,", " ", "\n", "-", "a", "é", "\0", "²"]
PARTS = [
    *("", "0", "-1", "1:1:", "0:0:", "5:3:", "1:9:4,3", "1:9:3,3", "1:9:,", "3:3:3", "::"),
    *(f"{2**63 - 1}:{2**63 - 1}:", f"{2**64}:{2**64}:", "1:99999999999999999999:"),
    "999999999999999999",
]


def tried(own: list[str]) -> st.SearchStrategy[Tried]:
    written = st.one_of(st.sampled_from(own), mutated(own), mutated(own), nonsense.texts)
    ways = nonsense.once_in(HTTP_SHARE)
    return st.builds(Tried, written, st.integers(1, 7), ways)


@dataclass
class Campaign:
    """Reads on from positions, and knows what each of them has not seen."""

    server: Server
    connection: psycopg.Connection[Any]
    events: list[tuple[int, int]]
    """Of each event its id and its transaction, in the order of ids."""
    until: str
    """The position after them; using a key over HTTP writes more."""

    def attempt(self, tried: Tried) -> Outcome:
        read = self._read(tried)
        if tried.http or "\0" in tried.position:
            self._ask(tried.position, accepted=read is not None)
        if read is None:
            return "refused"
        assert read == self._expected(tried.position), "events are skipped, doubled or misplaced"
        return "accepted"

    def _read(self, tried: Tried) -> list[int] | None:
        """The ids that come after a position; None if it is refused."""
        read: list[int] = []
        position = tried.position
        while True:
            try:
                rows = self.connection.execute(
                    "select position, id from chatter.events_after(%s, %s, p_until => %s)",
                    (position, tried.limit, self.until),
                ).fetchall()
            except (psycopg.errors.InvalidParameterValue, psycopg.DataError, UnicodeEncodeError):
                assert not read, "a position that was given out is refused"
                return None
            if not rows:
                return read
            # Not those that using the key has written since.
            read += [row[1] for row in rows if row[1] <= self.events[-1][0]]
            assert position != rows[-1][0], "a position leads to itself"
            position = rows[-1][0]

    def _expected(self, position: str) -> list[int]:
        _, *parts = position.split(".")
        seen = Snapshot.of(parts[0])
        batch: list[int] = []
        if len(parts) > 1:
            before, seen = seen, Snapshot.of(parts[1])
            batch = [
                number
                for number, transaction in self.events
                if seen.sees(transaction)
                and not before.sees(transaction)
                and number > int(parts[2])
            ]
        now = Snapshot.of(self.until.split(".")[1])
        rest = [
            number
            for number, transaction in self.events
            if now.sees(transaction) and not seen.sees(transaction)
        ]
        return batch + rest

    def _ask(self, position: str, *, accepted: bool) -> None:
        key = ("Authorization", f"Bearer {self.server.admin}")
        written = quote(position.encode(errors="surrogatepass"), safe="")
        asked = [Request("GET", f"/api/events?last_event_id={written}", (key,))]
        if position.isascii() and position.isprintable() and position == position.strip():
            asked.append(Request("GET", "/api/events", (key, ("Last-Event-ID", position))))
        for request in asked if position else ():
            try:
                answer = self.server.ask(request)
            except REFUSED_BY_CLIENT:
                continue
            assert answer.status == (200 if accepted else 400), (
                f"answered {answer.status} where Postgres {'takes' if accepted else 'refuses'} it"
            )
            if answer.status == 400:
                told = json.loads(answer.body)
                assert "Last-Event-ID" in told["detail"], "the refusal names no field"
        self.server.assert_nothing_logged()


def run(url: str, inputs: int, seed: int, tell: Tell) -> Tally:
    tally = Tally("positions")
    with server(url) as running, psycopg.connect(url, autocommit=True) as connection:
        own = _make_history(url, connection)
        events = connection.execute(
            "select id, xact_id::text::bigint from chatter.events order by id"
        ).fetchall()
        until = _one(connection, "select chatter.events_now()")
        campaign = Campaign(running, connection, events, until)
        drive(tally, tried(own), inputs, seed, campaign.attempt, tell)
        assert running.is_alive(), "the server is gone"
    return tally


def _make_history(url: str, connection: psycopg.Connection[Any]) -> list[str]:
    """Transactions that overlap, and every position that a reader may have on the way."""
    own: list[str] = []
    conversation = _one(
        connection, "insert into chatter.conversations (external_id) values ('fuzz') returning id"
    )
    other = _one(
        connection, "insert into chatter.conversations (external_id) values ('late') returning id"
    )
    write = "insert into chatter.messages (conversation_id, role) values (%s, 'user')"
    with psycopg.connect(url) as late:
        for number in range(TRANSACTIONS):
            if number % 4 == 1:
                late.execute(write, (other,))  # stays open while others commit
            connection.execute(write, (conversation,))
            own.append(_one(connection, "select chatter.events_now()"))
            rows = connection.execute(
                "select position from chatter.events_after(%s, 3)", (own[number // 2],)
            )
            own += [row[0] for row in rows]
            if number % 4 == 3:
                late.commit()
    own.append(_one(connection, "select chatter.events_oldest()"))
    return own


def _one(connection: psycopg.Connection[Any], query: LiteralString) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
