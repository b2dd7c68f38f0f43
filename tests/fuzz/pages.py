"""Cursors of lists, random and mutated: refused with 422 and the field, or a page that follows."""

import base64
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg
from hypothesis import strategies as st

from tests.fuzz import nonsense
from tests.fuzz.requests import operations
from tests.fuzz.serving import Request, Server, server
from tests.fuzz.tally import Outcome, Tally, Tell, drive

CONVERSATIONS = 30
RUNS = 30

GROWING = "/api/security/"
"""Lists that have a new item with every key that is used."""


@dataclass(frozen=True)
class Tried:
    """A list, and where in it to go on."""

    path: str
    after: str
    limit: int


times = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.sampled_from(
        [
            "0001-01-01T00:00:00+14:00",
            "0001-01-01T00:00:00",
            "9999-12-31T23:59:59-14:00",
            "9999-12-31T23:59:59.999999",
            "2026-01-31",
            "2026-W05",
            "20260131T080000Z",
        ]
    ),
)
ids = st.uuids().map(str) | st.sampled_from(
    ["{0190c0de-0000-7000-8000-000000000001}", "urn:uuid:0190c0de-0000-7000-8000-000000000001"]
)
keys = st.one_of(
    st.tuples(times, ids),
    st.tuples(ids),
    st.tuples(st.integers() | st.integers(0, 10**5) | nonsense.texts),
    st.lists(nonsense.values, max_size=3),
    nonsense.values,
)


def _encoded(key: Any) -> str:
    written = json.dumps(key, default=str, skipkeys=True)
    return base64.urlsafe_b64encode(written.encode()).decode()


@st.composite
def cursors(draw: st.DrawFn, own: list[str]) -> str:
    match draw(st.sampled_from(["own", "key", "bytes", "text"])):
        case "own":
            spoilt = draw(nonsense.damaged(st.just(draw(st.sampled_from(own)).encode())))
            return spoilt.decode("latin-1")[:2000]
        case "key":
            key = draw(keys)
            usual = isinstance(key, tuple) and draw(st.booleans())
            return _encoded([str(part) for part in key] if usual else key)
        case "bytes":
            return base64.urlsafe_b64encode(draw(st.binary(max_size=40))).decode()
        case _:
            return draw(nonsense.texts)


@dataclass
class Campaign:
    """Asks for pages; every item of a list is known, in its order."""

    server: Server
    whole: dict[str, list[str]]

    def attempt(self, tried: Tried) -> Outcome:
        written = quote(tried.after.encode(errors="surrogatepass"), safe="")
        answer = self._ask(f"{tried.path}?limit={tried.limit}&after={written}")
        self.server.assert_nothing_logged()
        assert answer.status in (200, 422), f"answered {answer.status}"
        told = json.loads(answer.body)
        if answer.status == 422:
            assert "after" in told["detail"], "the refusal names no field"
            return "refused"
        items = [_name(item) for item in told["items"]]
        whole = self.whole[tried.path]
        if items and not tried.path.startswith(GROWING):
            begin = whole.index(items[0])
            assert items == whole[begin : begin + tried.limit], "a page skips or doubles"
        return "accepted"

    def _ask(self, target: str) -> Any:
        key = ("Authorization", f"Bearer {self.server.admin}")
        return self.server.ask(Request("GET", target, (key,)))

    def read_all(self, path: str) -> list[str]:
        """The whole list in pages of 7, as a client reads it; every cursor on the way."""
        items, own, after = [], [], ""
        while True:
            told = json.loads(self._ask(f"{path}?limit=7{after}").body)
            items += [_name(item) for item in told["items"]]
            if told["next"] is None:
                break
            own.append(told["next"])
            after = f"&after={quote(told['next'], safe='')}"
        assert len(items) == len(set(items)), f"{path}: something comes twice"
        self.whole[path] = items
        return own


def _name(item: dict[str, Any]) -> str:
    return str(item.get("id") or json.dumps(item, sort_keys=True))


def run(url: str, inputs: int, seed: int, tell: Tell) -> Tally:
    tally = Tally("pages")
    with server(url) as running, psycopg.connect(url, autocommit=True) as connection:
        conversation = _fill(connection)
        document = json.loads(running.ask(Request("GET", "/openapi.json")).body)
        paths = [
            operation.path.replace("{conversation_id}", conversation).replace("{name}", report)
            for operation in operations(document)
            if operation.method == "GET" and "after" in operation.parameters
            for report in ("cost_by_conversation", "monthly_bill")
        ]
        campaign = Campaign(running, {})
        own = [each for path in sorted(set(paths)) for each in campaign.read_all(path)]
        assert own, "no list has two pages"
        tries = st.builds(
            Tried, st.sampled_from(sorted(set(paths))), cursors(own), st.integers(1, 9)
        )
        drive(tally, tries, inputs, seed, campaign.attempt, tell)
        assert running.is_alive(), "the server is gone"
    return tally


def _fill(connection: psycopg.Connection[Any]) -> str:
    """Conversations, messages and runs enough for several pages; the id of a conversation."""
    connection.execute(
        "insert into chatter.conversations (external_id) "
        "select 'c-' || n from generate_series(1, %s) n",
        (CONVERSATIONS,),
    )
    connection.execute(
        "insert into chatter.messages (conversation_id, role, prompt_tokens, cost) "
        "select c.id, 'assistant', n, 0.01 * n "
        "from chatter.conversations c, generate_series(1, 9) n"
    )
    connection.execute(
        "insert into chatter.workflow_executions (workflow_name) "
        "select 'w' from generate_series(1, %s)",
        (RUNS,),
    )
    row = connection.execute(
        "select id from chatter.conversations order by external_id limit 1"
    ).fetchone()
    assert row is not None
    return str(row[0])
