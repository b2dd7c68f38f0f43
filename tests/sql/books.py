"""A thin client of the books: one method per operation, so that tests read like the protocol."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from chatter_db.queries import checks

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Totals:
    """The totals of a conversation; those not named are zero."""

    message_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    total_cost: Decimal = Decimal(0)
    unpriced_calls: int = 0


@dataclass(frozen=True)
class RunTotals:
    """The totals of an execution; those not named are zero."""

    model_calls: int = 0
    tool_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    total_cost: Decimal = Decimal(0)


SUMS = [
    *(("conversations", field.name) for field in fields(Totals)),
    *(("workflow_executions", field.name) for field in fields(RunTotals)),
]
"""Table and column of every total but last_message_at."""


class Books:
    """Statements on the schema `chatter` over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def user(self, external_id: str, **columns: Any) -> UUID:
        return self._insert("users", external_id=external_id, **columns)

    def conversation(self, **columns: Any) -> UUID:
        return self._insert("conversations", **columns)

    def conversations(self, number: int) -> list[UUID]:
        """New conversations, in order of id."""
        return sorted(self.conversation() for _ in range(number))

    def execution(self, conversation: UUID | None = None, **columns: Any) -> UUID:
        columns = {"workflow_name": "support", **columns}
        return self._insert("workflow_executions", conversation_id=conversation, **columns)

    def message(self, conversation: UUID, **columns: Any) -> UUID:
        """A message row; a model's answer unless `role` says otherwise."""
        columns = {"role": "assistant", **columns}
        return self._insert("messages", conversation_id=conversation, **columns)

    def messages(self, rows: Iterable[Mapping[str, Any]]) -> list[UUID]:
        """Rows with equal columns, inserted by one statement."""
        return self.insert_rows("messages", [{"role": "assistant", **row} for row in rows])

    def change(self, *messages: UUID, **columns: Any) -> int:
        """One UPDATE of all `messages`; the number of rows it changed."""
        return self._update("messages", messages, columns)

    def move(self, *messages: UUID, to: UUID) -> int:
        return self.change(*messages, conversation_id=to)

    def delete(self, *messages: UUID) -> int:
        return self._delete("messages", messages)

    def tool_call(self, execution: UUID, **columns: Any) -> UUID:
        columns = {"tool_name": "search", **columns}
        return self._insert("tool_calls", execution_id=execution, **columns)

    def change_tool_calls(self, *tool_calls: UUID, **columns: Any) -> int:
        return self._update("tool_calls", tool_calls, columns)

    def delete_tool_calls(self, *tool_calls: UUID) -> int:
        return self._delete("tool_calls", tool_calls)

    def change_conversation(self, conversation: UUID, **columns: Any) -> int:
        return self._update("conversations", (conversation,), columns)

    def delete_conversation(self, conversation: UUID) -> int:
        return self._delete("conversations", (conversation,))

    def change_execution(self, execution: UUID, **columns: Any) -> int:
        return self._update("workflow_executions", (execution,), columns)

    def delete_execution(self, execution: UUID) -> int:
        return self._delete("workflow_executions", (execution,))

    def lock(self, *conversations: UUID) -> None:
        self.connection.execute(
            "select chatter.lock_conversations(variadic %s)", [list(conversations)]
        )

    def erase(self, conversation: UUID) -> bool:
        erased: bool = self.value("select chatter.erase_conversation(%s)", conversation)
        return erased

    def recount(self) -> set[tuple[str, UUID]]:
        """Mends the totals and says which rows it mended."""
        return set(self.rows("select mended_table, mended_id from chatter.recount()"))

    def rebuild(self) -> None:
        """Counts the rollups of the analytics anew."""
        self.value("select analytics.rebuild()")

    def totals(self, conversation: UUID) -> Totals:
        return Totals(
            *self.row(
                "select message_count, prompt_tokens, completion_tokens, total_tokens, total_cost, "
                "unpriced_calls from chatter.conversations where id = %s",
                conversation,
            )
        )

    def run_totals(self, execution: UUID) -> RunTotals:
        return RunTotals(
            *self.row(
                "select model_calls, tool_calls, prompt_tokens, completion_tokens, total_tokens, "
                "total_cost from chatter.workflow_executions where id = %s",
                execution,
            )
        )

    def last_message_at(self, conversation: UUID) -> datetime | None:
        return self.field("conversations", conversation, "last_message_at")  # type: ignore[no-any-return]

    def field(self, table: str, row: UUID, column: str) -> Any:
        """One column of one row."""
        statement = sql.SQL("select {} from {} where id = %s").format(
            sql.Identifier(column), sql.Identifier("chatter", table)
        )
        return self.value(statement, row)

    def findings(self) -> dict[str, list[tuple[Any, ...]]]:
        """What the checks of sql/checks find, by name; empty when the books are right."""
        found = {check.name: self.rows(check.statement.text) for check in checks()}
        return {name: rows for name, rows in found.items() if rows}

    def rows(self, statement: str | sql.Composed, *values: Any) -> list[tuple[Any, ...]]:
        # Without values the statement goes out as it is, with any `%` in it.
        return self.connection.execute(statement, values or None).fetchall()

    def row(self, statement: str | sql.Composed, *values: Any) -> tuple[Any, ...]:
        (row,) = self.rows(statement, *values)
        return row

    def value(self, statement: str | sql.Composed, *values: Any) -> Any:
        (value,) = self.row(statement, *values)
        return value

    def insert_rows(self, table: str, rows: list[dict[str, Any]]) -> list[UUID]:
        """Inserts `rows` by one statement and returns their ids in order."""
        columns = list(rows[0])
        statement = sql.SQL("insert into {} ({}) values {} returning id").format(
            sql.Identifier("chatter", table),
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.SQL(", ").join(
                sql.SQL("({})").format(sql.SQL(", ").join(sql.Placeholder() * len(columns)))
                for _ in rows
            ),
        )
        values = [_value(row[column]) for row in rows for column in columns]
        return [row[0] for row in self.connection.execute(statement, values)]

    def _insert(self, table: str, **columns: Any) -> UUID:
        if not columns:
            statement = sql.SQL("insert into {} default values returning id")
            inserted: UUID = self.value(statement.format(sql.Identifier("chatter", table)))
            return inserted
        (inserted,) = self.insert_rows(table, [columns])
        return inserted

    def _update(self, table: str, ids: tuple[UUID, ...], columns: dict[str, Any]) -> int:
        statement = sql.SQL("update {} set {} where id = any(%s)").format(
            sql.Identifier("chatter", table),
            sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns),
        )
        values = [*map(_value, columns.values()), list(ids)]
        return self.connection.execute(statement, values).rowcount

    def _delete(self, table: str, ids: tuple[UUID, ...]) -> int:
        statement = sql.SQL("delete from {} where id = any(%s)").format(
            sql.Identifier("chatter", table)
        )
        return self.connection.execute(statement, [list(ids)]).rowcount


def _value(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict | list) else value
