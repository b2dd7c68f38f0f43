"""Requests to every route that the server describes, and to none: refused with a problem, or done.

What is refused leaves the books as they were; nothing is answered with a 5xx but the 503 and 502
that are described, and nothing is logged as an error.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import psycopg
from hypothesis import strategies as st

from tests.fuzz import nonsense
from tests.fuzz.serving import REFUSED_BY_CLIENT, Answer, Request, Server, server
from tests.fuzz.tally import Outcome, Tally, Tell, drive

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND"]

OFFLINE = "offline"
"""The only model that may be asked: any other name would be looked for on the network."""

ENDING = {"/api/auth/logout", "/api/auth/password"}
"""Sends away who asks; tried by who is not signed in."""


@dataclass(frozen=True)
class Operation:
    """What the description says of one method of one path."""

    method: str
    path: str
    fields: tuple[str, ...]
    parameters: tuple[str, ...]
    statuses: frozenset[int]


def operations(description: dict[str, Any]) -> list[Operation]:
    """All that the OpenAPI document describes."""
    found = []
    for path, methods in description["paths"].items():
        for method, told in methods.items():
            body = told.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
            schema = description["components"]["schemas"].get(name, {})
            found.append(
                Operation(
                    method.upper(),
                    path,
                    tuple(schema.get("properties", {})),
                    tuple(p["name"] for p in told.get("parameters", ()) if p["in"] == "query"),
                    frozenset(int(status) for status in told["responses"]),
                )
            )
    return found


words = st.one_of(
    nonsense.texts,
    st.sampled_from(
        [
            *("0", "1", "200", "201", "-1", "1e3", "UTC", "Europe/Berlin", "Mars/Olympus", "today"),
            *("2026-01-31", "2026-01-31T08:00", "0001-01-01", "9999-12-31T23:59:59", "2026-W01-1"),
            *("20260131", "2026-01-31T24:00", "294276-12-31", "all", "7d", "completed", "admin"),
            "0190c0de-0000-7000-8000-000000000001",
            "+14:00",
            "XXX3AAA+25",
            "posixrules",
        ]
    ),
)


known = st.integers(0, 399).map(lambda number: f"known{number:03}")
"""Stands for an id or a cursor that was answered: what is drawn depends on the seed alone."""

parts = known | words


@st.composite
def targets(draw: st.DrawFn, operation: Operation) -> str:
    path = operation.path
    while "{" in path:
        name = path[path.index("{") : path.index("}") + 1]
        path = path.replace(name, _quoted(draw(parts)), 1)
    if draw(nonsense.once_in(20)):
        path += _quoted(draw(words))
    names = st.sampled_from([*operation.parameters, "limit", "after"]) | st.text(max_size=4)
    given = draw(st.lists(st.tuples(names, parts), max_size=4))
    query = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in given)
    if draw(nonsense.once_in(20)):
        query += draw(st.sampled_from(["&%ff=%fe", "&%", "&=", "&&&", "&a=%00", "&limit"]))
    return f"{path}?{query}" if query else path


def _quoted(text: str) -> str:
    return quote(text.encode(errors="surrogatepass"), safe="")[:4000]


@st.composite
def bodies(draw: st.DrawFn, operation: Operation) -> bytes | None:
    kind = draw(st.sampled_from(["fields"] * 6 + ["other", "none", "bytes", "deep", "huge"]))
    if kind == "none":
        return None
    if kind == "bytes":
        return draw(st.binary(max_size=40))
    if kind == "deep":
        return draw(st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000]))
    if kind == "huge":
        return (
            b'{"content": "' + b"x" * draw(st.sampled_from([100_001, 1024 * 1024, 2**21])) + b'"}'
        )
    value = draw(nonsense.values) if kind == "other" else draw(_objects(operation))
    if isinstance(value, dict):
        value = {str(key): inner for key, inner in value.items()}
        if "model" in value:
            value["model"] = draw(st.sampled_from([OFFLINE, None, "nobody:x", "nonsense", 7, ""]))
    written = json.dumps(value, default=str, ensure_ascii=draw(st.booleans()), skipkeys=True)
    data = written.encode(errors="surrogatepass")
    if draw(nonsense.once_in(5)):
        data = draw(nonsense.damaged(st.just(data)))
        if b"model" in data and OFFLINE.encode() not in data:
            return None
    return data


def _objects(operation: Operation) -> st.SearchStrategy[Any]:
    names = st.sampled_from([*operation.fields, "more"])
    usual = words | st.sampled_from(["What is 6 * 7?", "correct horse battery", "user", 30])
    return st.dictionaries(names, usual | nonsense.values, max_size=5)


LATIN: Any = {"min_codepoint": 32, "max_codepoint": 255}
"""What HTTP lets into a header; the rest is no request, and the app doesn't see it."""

headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("Accept", "Content-Type", "Authorization", "Cookie", "X-Correlation-ID"),
                *("Idempotency-Key", "Last-Event-ID", "Sec-Fetch-Site", "Origin", "Range"),
                *("If-None-Match", "User-Agent", "X-Forwarded-For", "Accept-Encoding", "Expect"),
            ]
        ),
        st.one_of(
            st.text(st.characters(exclude_characters="\x7f", **LATIN), max_size=20),
            st.sampled_from(
                [
                    *("text/event-stream", "application/json", "application/json; charset=utf-16"),
                    *("multipart/form-data", "text/plain", "cross-site", "bytes=0-", "key-1"),
                    *("Bearer chatter_x", "Bearer", "Basic Og==", "chatter_session=x", "x" * 8000),
                ]
            ),
        ),
    ),
    max_size=3,
)


@st.composite
def asked(draw: st.DrawFn, described: list[Operation]) -> Request:
    operation = draw(st.sampled_from(described))
    method = operation.method
    if draw(nonsense.once_in(10)):
        method = draw(st.sampled_from(METHODS))
    sent = draw(headers) if draw(st.booleans()) else []
    who = draw(st.sampled_from(["admin", "admin", "user", None]))
    if operation.path in ENDING:
        who = None
    if who is not None:
        sent.insert(0, ("Authorization", who))
    body = None
    if draw(nonsense.once_in(10)) or operation.fields:
        body = draw(bodies(operation))
    if body is not None and not draw(nonsense.once_in(10)):
        sent.append(("Content-Type", "application/json"))
    return Request(method, draw(targets(operation)), tuple(sent), body)


@dataclass
class Campaign:
    """Asks, and looks at the answer, the log and the books."""

    server: Server
    connection: psycopg.Connection[Any]
    known: list[str]
    """Ids and cursors that were answered."""
    _books: tuple[Any, ...] = ()

    def attempt(self, request: Request) -> Outcome:
        before = self._books or self.fingerprint()
        try:
            answer = self.server.ask(self._filled(request))
        except REFUSED_BY_CLIENT:
            return "refused"
        self._books = self.fingerprint()
        assert answer.status < 500 or answer.status in (502, 503), f"answered {answer.status}"
        assert answer.status != 503, "answered 503, with the database at its side"
        failed_run = answer.status == 502
        self.server.assert_nothing_logged()
        if answer.status < 400:
            self._learn(answer)
            return "accepted"
        assert failed_run or self._books == before, f"a {answer.status} changed the books"
        _assert_problem(request, answer)
        return "refused"

    def _filled(self, request: Request) -> Request:
        """The request with the ids and keys of this server."""
        keys = {"admin": f"Bearer {self.server.admin}", "user": f"Bearer {self.server.user}"}
        target = re.sub(
            r"known(\d{3})",
            lambda found: quote(self.known[int(found[1]) % len(self.known)], safe=""),
            request.target,
        )
        sent = tuple((name, keys.get(value, value)) for name, value in request.headers)
        return replace(request, target=target, headers=sent)

    def fingerprint(self) -> tuple[Any, ...]:
        """What a request may change of the books; what is noted at the door is no part of it."""
        row = self.connection.execute(
            """
            select
              (select count(*) || ':' || sum(hashtextextended(u::text, 0)) from chatter.users u),
              (
                select count(*) || ':' || sum(hashtextextended(c::text, 0))
                from chatter.conversations c
              ),
              (select count(*) || ':' || max(id::text) from chatter.messages),
              (select count(*) || ':' || max(id::text) from chatter.workflow_executions),
              (select count(*) from chatter.tool_calls),
              (select count(*) || ':' || count(revoked_at) from chatter.api_keys),
              (select count(*) from chatter.events where category not in ('security', 'alert'))
            """
        ).fetchone()
        assert row is not None
        return tuple(row)

    def _learn(self, answer: Answer) -> None:
        """Ids and cursors of answers: what comes back in later requests."""
        kind = answer.headers.get("content-type")
        if len(self.known) < 400 and answer.body and kind == "application/json":
            told = json.loads(answer.body)
            for each in [told, *(told.get("items", ()) if isinstance(told, dict) else ())][:3]:
                if isinstance(each, dict):
                    self.known += [str(each[name]) for name in ("id", "next") if each.get(name)]


def run(url: str, inputs: int, seed: int, tell: Tell) -> Tally:
    tally = Tally("http")
    with server(url) as running, psycopg.connect(url, autocommit=True) as connection:
        document = json.loads(running.ask(Request("GET", "/openapi.json")).body)
        described = operations(document)
        ids = connection.execute("select id from chatter.conversations order by id").fetchall()
        campaign = Campaign(running, connection, [str(row[0]) for row in ids])
        drive(tally, asked(described), inputs, seed, campaign.attempt, tell)
        assert running.is_alive(), "the server is gone"
    return tally


def _assert_problem(request: Request, answer: Answer) -> None:
    """A refusal says what is wrong, and which field where the request has one."""
    if request.method == "HEAD":
        return
    kind = answer.headers.get("content-type", "")
    assert kind == "application/problem+json", f"a {answer.status} as {kind or 'nothing'}"
    told = json.loads(answer.body)
    assert told["status"] == answer.status, "the problem has another status"
    assert told["detail"], f"a {answer.status} has no detail"
    assert "Traceback" not in told["detail"], "a traceback is shown"
    assert told["correlation_id"], "a problem has no correlation id"
    for error in told.get("errors", ()):
        assert error["where"] and error["what"], "a refusal names no field"
