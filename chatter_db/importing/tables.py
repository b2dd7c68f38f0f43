"""Two tables of another application, conversations and messages, read in one snapshot.

Nothing is ever written to them. What their columns mean is told by their names, as an
import tells it (columns.py); names of their own are mapped.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    MetaData,
    Numeric,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    null,
    or_,
    select,
)
from sqlalchemy.exc import NoSuchTableError

from chatter_db.errors import UsageError
from chatter_db.importing.columns import check_header, sources
from chatter_db.models import MAX_NAME, MAX_TITLE

Expression: TypeAlias = ColumnElement[Any]
Rows: TypeAlias = Select[*tuple[Any, ...]]

# Totals that the application kept, by their names here.
TOTALS: Final = (
    "message_count",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "total_cost",
)
_CONVERSATION: Final = ("id", "user_id", "title", "status", "created_at", *TOTALS)
# What frameworks call them, beside our own words.
_ROLES: Final = {"human": "user", "ai": "assistant", "bot": "assistant", "function": "tool"}
_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(frozen=True)
class Drift:
    """A total that the application kept, and what its messages come to."""

    conversation: str
    total: str
    stored: Decimal | None
    recounted: Decimal


@dataclass(frozen=True)
class Findings:
    """What is wrong with the tables. Counts of rows, except `drifted`: of conversations."""

    conversations: int
    messages: int
    unknown_usage: int
    zero_usage: int
    unpriced_calls: int
    orphans: int
    repeated_ids: int
    look_alikes: int
    drifted: int
    drift: tuple[Drift, ...]


class Tables:
    """The tables `conversations` and `messages`, each `table` or `schema.table`.

    `mapping` is from their columns to those of the books, a column of conversations
    written `conversations.COLUMN`. Columns in `ignored` mean nothing.

    Raises UsageError for a table or column that isn't there.
    """

    def __init__(
        self,
        connection: Connection,
        conversations: str,
        messages: str,
        mapping: Mapping[str, str],
        ignored: Collection[str],
    ) -> None:
        prefix = "conversations."
        of_conversations = {
            source.removeprefix(prefix): target
            for source, target in mapping.items()
            if source.startswith(prefix)
        }
        of_messages = {k: v for k, v in mapping.items() if not k.startswith(prefix)}
        self._conversations = _table(connection, conversations)
        self._messages = _table(connection, messages)
        self._c = _conversation_columns(self._conversations, of_conversations)
        self._m, self.without_meaning = _message_columns(self._messages, of_messages, ignored)

    def conversations(self) -> Rows:
        """external_id, user, title, status, created_at of every conversation.

        An empty user is nobody. Where no book takes a name, the messages under it say so.
        """
        status = func.lower(cast(self._conversation("status"), Text))
        known = status.in_(["active", "archived", "deleted"])
        name, user = cast(self._c["id"], Text), cast(self._conversation("user_id"), Text)
        found = select(
            name.label("external_id"),
            func.nullif(user, "").label("user"),
            func.left(cast(self._conversation("title"), Text), MAX_TITLE).label("title"),
            case((known, status), else_="active").label("status"),
            self._conversation("created_at").label("created_at"),
        )
        takable = func.length(name).between(1, MAX_NAME)
        user_takable = func.coalesce(func.length(user), 0) <= MAX_NAME
        return found.where(takable, user_takable).order_by(self._c["id"])

    def messages(self) -> Rows:
        """Every message in the words of an import, a conversation's together."""
        columns = {target: _plain(column) for target, column in self._m.items()}
        # A UUID stays the message's id; of any other, one is derived.
        if "id" in columns and not isinstance(self._m["id"].type, Uuid):
            columns["key"] = columns.pop("id")
        columns["conversation"] = cast(self._m["conversation"], Text)
        columns["user"] = self._user
        columns["role"] = self._role
        columns["kind"] = self._kind
        for name in (*_TOKENS, "cost"):
            if name in self._m:
                columns[name] = self._spent(name)
        order = [self._m["conversation"], *(self._m[n] for n in ("time", "id") if n in self._m)]
        found = select(*(column.label(name) for name, column in columns.items()))
        return found.select_from(self._joined).order_by(*order)

    def findings(self, connection: Connection, shown: int) -> Findings:
        """What is wrong, with the first `shown` totals that drifted."""
        calls = self._role == "assistant"
        unknown = and_(calls, *(self._spent(name).is_(None) for name in _TOKENS))
        counts = connection.execute(
            select(
                func.count(),
                func.count().filter(unknown),
                func.count().filter(self._zero),
                func.count().filter(calls, self._spent("cost").is_(None)),
                func.count().filter(self._c["id"].is_(None)),
            ).select_from(self._joined)
        ).one()
        drift = self._drift().subquery()
        drifted = connection.scalar(select(func.count(drift.c.conversation.distinct())))
        first = connection.execute(
            select(drift).order_by(drift.c.conversation, drift.c.total).limit(shown)
        )
        return Findings(
            connection.scalar(select(func.count()).select_from(self._conversations)) or 0,
            *counts,
            repeated_ids=self._repeats(connection, ["id"]),
            look_alikes=self._repeats(connection, ["conversation", "role", "content", "time"]),
            drifted=drifted or 0,
            drift=tuple(Drift(*row) for row in first),
        )

    def _conversation(self, name: str) -> Expression:
        column = self._c.get(name)
        return null() if column is None else column

    def _message(self, name: str) -> Expression:
        column = self._m.get(name)
        return null() if column is None else column

    @cached_property
    def _joined(self) -> FromClause:
        # As text: an application without a foreign key may have types that differ.
        same = cast(self._c["id"], Text) == cast(self._m["conversation"], Text)
        return self._messages.outerjoin(self._conversations, same)

    @property
    def _user(self) -> Expression:
        of_conversation = cast(self._conversation("user_id"), Text)
        return case(
            (self._c["id"].is_not(None), of_conversation), else_=cast(self._message("user"), Text)
        )

    @property
    def _role(self) -> Expression:
        role = func.lower(cast(self._message("role"), Text))
        return func.coalesce(case(_ROLES, value=role, else_=role), "assistant")

    @property
    def _kind(self) -> Expression:
        if "kind" in self._m:
            return _plain(self._m["kind"])
        return case((self._role == "tool", "step"), else_="turn")

    @property
    def _zero(self) -> Expression:
        """A reply that says it took no token: a default nobody filled in."""
        stated = [self._m[name] for name in _TOKENS if name in self._m]
        if not stated:
            return false()
        return and_(
            self._role == "assistant",
            or_(*(column == 0 for column in stated)),
            *(func.coalesce(column, 0) == 0 for column in stated),
        )

    def _spent(self, name: str) -> Expression:
        """Tokens or cost as they will be booked: NULL where a zero says that nobody knew."""
        column = cast(self._message(name), Numeric)
        return case((and_(self._zero, func.coalesce(column, 0) == 0), null()), else_=column)

    def _drift(self) -> Rows:
        prompt, completion, total = (self._spent(name) for name in _TOKENS)
        both = func.coalesce(total, prompt + func.coalesce(completion, 0), completion)
        recounts = {
            "message_count": func.count().filter(self._kind == "turn"),
            "prompt_tokens": func.sum(prompt),
            "completion_tokens": func.sum(completion),
            "total_tokens": func.sum(both),
            "total_cost": func.sum(self._spent("cost")),
        }
        kept = [name for name in TOTALS if name in self._c]
        of = cast(self._m["conversation"], Text)
        recounted = (
            select(of.label("of"), *(recounts[name].label(name) for name in kept))
            .select_from(self._joined)
            .group_by(of)
            .subquery()
        )
        each = [
            select(
                cast(self._c["id"], Text).label("conversation"),
                literal(name).label("total"),
                cast(self._c[name], Numeric).label("stored"),
                func.coalesce(cast(recounted.c[name], Numeric), 0).label("recounted"),
            )
            .select_from(self._conversations)
            .outerjoin(recounted, recounted.c.of == cast(self._c["id"], Text))
            for name in kept
        ]
        if not each:
            nothing = [null().label(n) for n in ("conversation", "total", "stored", "recounted")]
            return select(*nothing).where(false())
        rows = each[0].union_all(*each[1:]).subquery()
        return select(rows).where(rows.c.stored.is_distinct_from(rows.c.recounted))

    def _repeats(self, connection: Connection, names: Sequence[str]) -> int:
        """How many rows say again what another one says in all these columns."""
        if any(name not in self._m for name in names):
            return 0
        columns = [_plain(self._m[name]) for name in names]
        more = select((func.count() - 1).label("more")).select_from(self._messages)
        groups = more.group_by(*columns).subquery()
        return int(connection.scalar(select(func.coalesce(func.sum(groups.c.more), 0))) or 0)


def record(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A row's values as an import has them: times as ISO 8601, floats digit for digit."""
    for name, value in row.items():
        if isinstance(value, datetime):
            yield name, value.isoformat()
        elif isinstance(value, float):
            yield name, repr(value)
        else:
            yield name, value


def _plain(column: Column[Any]) -> Expression:
    """As a number, a time or text: an import knows no more."""
    try:
        known = column.type.python_type
    except NotImplementedError:  # SQLAlchemy 2.0, of a type that Python has none for
        known = str
    return column if known in {int, float, Decimal, datetime} else cast(column, Text)


def _table(connection: Connection, name: str) -> Table:
    schema, _, table = name.rpartition(".")
    try:
        return Table(
            table, MetaData(), schema=schema or None, autoload_with=connection, resolve_fks=False
        )
    except NoSuchTableError:
        raise UsageError(
            f"There is no table {name} that this user may see; name it with its schema, "
            "as in --conversations app.threads --messages app.posts."
        ) from None


def _conversation_columns(table: Table, mapping: Mapping[str, str]) -> dict[str, Column[Any]]:
    columns = {name: table.columns[name] for name in _CONVERSATION if name in table.columns}
    for source, target in mapping.items():
        if target not in _CONVERSATION:
            raise UsageError(
                f"Can't map conversations.{source} to {target}: there is no such column. "
                f"There are: {', '.join(_CONVERSATION)}."
            )
        columns[target] = _column(table, source)
    if "id" not in columns:
        raise _no_id(table, "conversations.COLUMN=id")
    return columns


def _message_columns(
    table: Table, mapping: Mapping[str, str], ignored: Collection[str]
) -> tuple[dict[str, Column[Any]], tuple[str, ...]]:
    for source in (*mapping, *ignored):
        _column(table, source)
    known = {k: v for k, v in sources(mapping).items() if k not in ignored}
    names = [column.name for column in table.columns]
    check_header(names, known)
    columns = {known[name]: table.columns[name] for name in names if name in known}
    if columns.keys().isdisjoint({"id", "key"}):
        # Its place among the others would change as the table grows.
        raise _no_id(table, "COLUMN=id")
    return columns, tuple(name for name in names if name not in known)


def _no_id(table: Table, example: str) -> UsageError:
    return UsageError(
        f"The table {table.fullname} has no column id; name it, as in --map {example}."
    )


def _column(table: Table, name: str) -> Column[Any]:
    if name not in table.columns:
        raise UsageError(
            f"The table {table.fullname} has no column {name}. "
            f"It has: {', '.join(table.columns.keys())}."
        )
    return table.columns[name]
