"""Every function that an app or a reader may call in SQL, with whatever its types can hold.

An answer, or an error that says what is wrong: nothing internal, nothing endless, and no change
made by a reader.
"""

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from hypothesis import strategies as st
from psycopg import sql

from tests.fuzz.tally import Outcome, Tally, Tell, drive

STATEMENT_TIMEOUT = "5s"

ROLES = ("chatter_app", "chatter_reader")

SAID = ("22", "23", "42", "CH")
"""Classes of errors that tell the caller something, ours among them."""

CALLABLE: LiteralString = """
select p.oid::regprocedure::text,
  quote_ident(n.nspname) || '.' || quote_ident(p.proname),
  array(select t::regtype::text from unnest(p.proargtypes) with ordinality as a (t, n) order by n),
  p.pronargdefaults
from pg_proc p
  join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('chatter', 'analytics')
  and p.prokind = 'f'
  and p.prorettype <> 'trigger'::regtype
  and has_schema_privilege(%(role)s, n.oid, 'usage')
  and has_function_privilege(%(role)s, p.oid, 'execute')
order by 1
"""

moments = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.sampled_from(
        [
            *("infinity", "-infinity", "epoch", "now", "today", "4713-01-01 BC", "294276-12-31"),
            *("2026-01-31 24:00", "2026-03-29 02:30 Europe/Berlin", "2026-01-01 00:00+14", "24:00"),
            *("0001-01-01", "9999-12-31 23:59:60"),
        ]
    ),
)
whole = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-1, 0, 1, 100, 2**31 - 1, 2**63 - 1])
fractions = st.floats().map(str) | st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "-0", "1e400", "1e-400", "9" * 400, "0.1", "-1"]
)
words = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from(
        [
            *(
                "",
                " ",
                "UTC",
                "Europe/Berlin",
                "Mars/Olympus",
                "posixrules",
                "XXX3AAA",
                "+14",
                "-99",
            ),
            *("hour", "day", "month", "century", "quarter", "user", "model", "openai", "gpt-4o"),
            *("1:1:", "5:3:", "x.1:1:", "000000000000.1:1:", "'; select 1; --", "%s", "x" * 10_000),
        ]
    ),
)
snapshots = st.sampled_from(["1:1:", "1:9:3,4", "5:3:", "9:9:", "1:9:4,3", f"1:{2**63 - 1}:"])
ids = st.uuids().map(str) | st.sampled_from(["00000000-0000-0000-0000-000000000000", "x"])

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "text": words,
    "uuid": ids,
    "integer": whole,
    "bigint": whole,
    "smallint": whole | st.integers(-400, 400),
    "numeric": fractions,
    "double precision": fractions,
    "boolean": st.sampled_from(["true", "false"]),
    "date": moments,
    "timestamp with time zone": moments,
    "timestamp without time zone": moments,
    "interval": st.sampled_from(
        ["1 day", "-1 day", "0", "1000000 years", "1 mon -30 days", "infinity", "1 microsecond"]
    ),
    "inet": st.sampled_from(["127.0.0.1", "::1", "10.0.0.0/8", "0.0.0.0/0", "x"]),
    "pg_snapshot": snapshots,
    "xid8": st.sampled_from(["0", "1", str(2**64 - 1), "x"]),
    "jsonb": st.sampled_from(["null", "{}", "[]", '{"a": [1e400]}', "{", '"\\u0000"']),
}


def values(kind: str) -> st.SearchStrategy[str | None]:
    """What a parameter of a type may be given, written as text."""
    if kind.endswith("[]"):
        inner = SCALARS.get(kind.removesuffix("[]"), words).map(str)
        one = st.lists(st.none() | inner, max_size=3).map(_array)
        made = one | st.sampled_from(["{}", "{" + ",".join(["x"] * 5000) + "}", "{{a},{b}}", "{"])
    elif kind in SCALARS:
        made = SCALARS[kind].map(str)
    else:  # a row of a table: as many commas as it has columns, or not
        made = st.integers(0, 30).map(lambda commas: f"({',' * commas})")
    # A type's own nonsense is refused by Postgres before the function sees it.
    return st.none() | made | made | made


def _array(items: list[str | None]) -> str:
    quoted = [
        "NULL" if item is None else '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for item in items
    ]
    return "{" + ",".join(quoted) + "}"


@dataclass(frozen=True)
class Function:
    role: str
    signature: str
    name: str
    kinds: tuple[str, ...]
    defaults: int


@dataclass(frozen=True)
class Call:
    function: Function
    arguments: tuple[str | None, ...]


@st.composite
def calls(draw: st.DrawFn, functions: list[Function]) -> Call:
    function = draw(st.sampled_from(functions))
    count = len(function.kinds) - draw(st.integers(0, function.defaults))
    return Call(function, tuple(draw(values(kind)) for kind in function.kinds[:count]))


@dataclass
class Campaign:
    """Calls as a role; whatever a call does is rolled back."""

    connection: psycopg.Connection[Any]

    def attempt(self, call: Call) -> Outcome:
        given = sql.SQL(", ").join(
            sql.SQL("{}::" + kind).format(sql.Literal(value))
            for kind, value in zip(call.function.kinds, call.arguments, strict=False)
        )
        query = sql.SQL("select f::text from {}({}) as f limit 1000").format(
            sql.SQL(call.function.name),
            given,
        )
        with self.connection.transaction(force_rollback=True):
            self.connection.execute(
                sql.SQL("set local role {}").format(sql.Identifier(call.function.role))
            )
            self.connection.execute(f"set local statement_timeout = '{STATEMENT_TIMEOUT}'")
            try:
                with self.connection.transaction():
                    self.connection.execute(query).fetchall()
            except psycopg.Error as error:
                state = error.sqlstate or "none"
                told = f"{call.function.signature}: {state} {str(error).splitlines()[0][:100]}"
                assert state.startswith(SAID), told
                return "refused"
            if call.function.role == "chatter_reader":
                written = self.connection.execute("select pg_current_xact_id_if_assigned()")
                assert written.fetchone() == (None,), f"{call.function.signature}: a reader wrote"
        return "accepted"


def functions_of(connection: psycopg.Connection[Any]) -> list[Function]:
    """All that the roles may call, from the catalog."""
    return [
        Function(role, signature, name, tuple(kinds), defaults)
        for role in ROLES
        for signature, name, kinds, defaults in connection.execute(CALLABLE, {"role": role})
    ]


def run(url: str, inputs: int, seed: int, tell: Tell) -> Tally:
    tally = Tally("sql")
    with psycopg.connect(url, autocommit=True) as connection:
        _fill(connection)
        functions = functions_of(connection)
        assert {function.role for function in functions} == set(ROLES), "a role may call nothing"
        drive(tally, calls(functions), inputs, seed, Campaign(connection).attempt, tell)
    return tally


def _fill(connection: psycopg.Connection[Any]) -> None:
    """Usage of some months, partly folded."""
    connection.execute(
        "insert into chatter.conversations (external_id)"
        " select 'c-' || n from generate_series(1, 9) n"
    )
    for _ in range(2):
        connection.execute(
            "insert into chatter.messages"
            " (conversation_id, role, model_used, prompt_tokens, cost, created_at)"
            " select c.id, 'assistant', 'm-' || n % 3, n, 0.01, now() - n * interval '7 hours'"
            " from chatter.conversations c, generate_series(1, 99) n"
        )
        connection.execute("select analytics.fold()")
        connection.execute("select analytics.refresh()")
    connection.execute(
        "insert into chatter.messages (conversation_id, role, prompt_tokens)"
        " select id, 'assistant', 7 from chatter.conversations"
    )
