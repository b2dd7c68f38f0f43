"""160_guards.sql: what is refused, to the owner and superuser as well, and what to do instead."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import errors, sql

from .books import SUMS, Books, RunTotals, Totals

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)

TOTALS: list[tuple[str, str, Any]] = [
    *((table, column, 1) for table, column in SUMS),
    ("conversations", "last_message_at", NOON),
]

NEEDED: dict[str, dict[str, Any]] = {
    "conversations": {},
    "workflow_executions": {"workflow_name": "support"},
}


def assert_refused(error: errors.ObjectNotInPrerequisiteState, table: str) -> None:
    assert error.diag.sqlstate == "55000"
    assert error.diag.schema_name == "chatter"
    assert error.diag.table_name == table
    assert error.diag.message_primary == (
        f"totals of chatter.{table} are kept by triggers and can't be written"
    )
    assert error.diag.message_hint is not None
    assert "chatter.messages or chatter.tool_calls" in error.diag.message_hint
    assert "select * from chatter.recount();" in error.diag.message_hint


@pytest.mark.parametrize(("table", "column", "value"), TOTALS)
def test_no_total_is_updated(books: Books, table: str, column: str, value: Any) -> None:
    row = books.insert_rows(table, [{"metadata": {}, **NEEDED[table]}])[0]
    update = sql.SQL("update {} set {} = %s where id = %s").format(
        sql.Identifier("chatter", table), sql.Identifier(column)
    )
    before = books.field(table, row, column)
    with pytest.raises(errors.ObjectNotInPrerequisiteState) as refused:
        books.connection.execute(update, [value, row])
    assert_refused(refused.value, table)
    # Nor a total that would not change, nor of no row at all: the rule is about the column.
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        books.connection.execute(update, [before, uuid4()])
    assert books.field(table, row, column) == before


@pytest.mark.parametrize(("table", "column", "value"), TOTALS)
def test_no_total_is_inserted(books: Books, table: str, column: str, value: Any) -> None:
    row = uuid4()
    with pytest.raises(errors.ObjectNotInPrerequisiteState) as refused:
        books.insert_rows(table, [{"id": row, **NEEDED[table], column: value}])
    assert_refused(refused.value, table)
    assert books.change_conversation(row, title="none") == 0


@pytest.mark.parametrize(("table", "column", "value"), TOTALS)
def test_a_total_may_be_inserted_as_what_it_is(
    books: Books, table: str, column: str, value: Any
) -> None:
    nothing = None if value is NOON else 0
    row = books.insert_rows(table, [{**NEEDED[table], column: nothing}])[0]
    assert books.field(table, row, column) == nothing


@pytest.mark.parametrize(
    "statement",
    [
        "insert into chatter.conversations (id) values (%(id)s) "
        "on conflict (id) do update set total_cost = 5",
        "merge into chatter.conversations as c using (values (%(id)s::uuid)) as v (id) "
        "on c.id = v.id when matched then update set total_cost = 5",
        "merge into chatter.conversations as c using (values (1)) as v (n) on false "
        "when not matched then insert (total_cost) values (v.n)",
        "with changed as (update chatter.conversations set total_cost = 5 where id = %(id)s "
        "returning id) select from changed",
        "update chatter.conversations set (title, message_count) = ('title', default) "
        "where id = %(id)s",
        "copy chatter.conversations (total_cost) from program 'echo 5'",
    ],
    ids=["upsert", "merge-update", "merge-insert", "with", "row", "copy"],
)
def test_no_way_around(books: Books, statement: str) -> None:
    conversation = books.conversation()
    number = "select count(*) from chatter.conversations"
    before = books.value(number)
    with pytest.raises(errors.ObjectNotInPrerequisiteState) as refused:
        # COPY takes no parameters.
        values = None if statement.startswith("copy") else {"id": conversation}
        books.connection.execute(statement, values)
    assert_refused(refused.value, "conversations")
    assert books.totals(conversation) == Totals()
    assert books.value(number) == before


def test_other_columns_stay_writable(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    books.message(conversation, execution_id=run, prompt_tokens=1)
    books.change_conversation(conversation, title="A title", status="archived", metadata={"a": 1})
    books.change_execution(run, metadata={"a": 1}, error_message="none")
    assert books.totals(conversation) == Totals(1, 1, 0, 1, unpriced_calls=1)
    assert books.run_totals(run) == RunTotals(1, 0, 1, 0, 1)


def test_maintenance_opens_the_totals_and_says_so(own_books: Books) -> None:
    conversation = own_books.conversation()
    run = own_books.execution(conversation)
    own_books.connection.execute("set chatter.maintenance = 'on'")
    own_books.change_conversation(conversation, message_count=3)
    own_books.change_execution(run, model_calls=3)
    own_books.connection.execute("reset chatter.maintenance")
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        own_books.change_conversation(conversation, message_count=0)
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        own_books.change_execution(run, model_calls=0)
    assert set(own_books.findings()) == {"conversation_totals", "execution_totals"}


@pytest.mark.parametrize(
    "table", ["users", "conversations", "workflow_executions", "messages", "tool_calls"]
)
@pytest.mark.parametrize("cascade", [False, True], ids=["plain", "cascade"])
def test_truncate_is_refused(books: Books, table: str, cascade: bool) -> None:
    conversation = books.conversation(user_id=books.user(str(uuid4())))
    run = books.execution(conversation)
    message = books.message(conversation, execution_id=run, prompt_tokens=1)
    books.tool_call(run, message_id=message)
    # Without cascade Postgres refuses tables that others refer to, before any trigger runs.
    leaf = table == "tool_calls"
    refusal = errors.ObjectNotInPrerequisiteState if cascade or leaf else errors.FeatureNotSupported
    books.connection.execute("set chatter.maintenance = 'on'")
    with pytest.raises(refusal) as refused:
        books.connection.execute(
            sql.SQL("truncate {} {}").format(
                sql.Identifier("chatter", table), sql.SQL("cascade" if cascade else "")
            )
        )
    books.connection.execute("reset chatter.maintenance")
    if cascade or leaf:
        assert refused.value.diag.message_primary is not None
        assert refused.value.diag.message_primary.startswith(f"TRUNCATE of chatter.{table} is")
        assert refused.value.diag.message_hint is not None
        assert "DELETE" in refused.value.diag.message_hint
    assert books.totals(conversation) == Totals(1, 1, 0, 1, unpriced_calls=1)


# --- parents of messages


@pytest.mark.parametrize("table", ["conversations", "workflow_executions"])
def test_a_parent_of_messages_is_not_deleted(books: Books, table: str) -> None:
    conversation = books.conversation()
    run = books.execution()
    message = books.message(conversation, execution_id=run)
    delete: Callable[[], int]
    if table == "conversations":
        column, parent, delete = (
            "conversation_id",
            conversation,
            lambda: books.delete_conversation(conversation),
        )
    else:
        column, parent, delete = "execution_id", run, lambda: books.delete_execution(run)
    with pytest.raises(errors.ForeignKeyViolation) as refused:
        delete()
    diagnostic = refused.value.diag
    assert diagnostic.sqlstate == "23503"
    assert diagnostic.constraint_name == f"messages_{column}_fkey"
    assert diagnostic.table_name == "messages"
    assert diagnostic.message_primary == (
        f'delete on table "{table}" violates foreign key constraint "messages_{column}_fkey" '
        'on table "messages"'
    )
    assert diagnostic.message_detail == (
        f'Key (id)=({parent}) is still referenced from table "messages".'
    )
    assert diagnostic.message_hint is not None
    assert "chatter.erase_conversation()" in diagnostic.message_hint
    books.delete(message)
    assert delete() == 1


def test_one_parent_with_messages_saves_all_of_a_statement(books: Books) -> None:
    *empty, full = books.conversations(5)
    books.message(full)
    with pytest.raises(errors.ForeignKeyViolation):
        books.connection.execute(
            "delete from chatter.conversations where id = any(%s)", [[*empty, full]]
        )
    assert books.totals(empty[0]) == Totals()
    for conversation in empty:
        assert books.delete_conversation(conversation) == 1


def test_deleting_no_parent_is_fine(books: Books) -> None:
    assert books.delete_conversation(uuid4()) == 0
    assert books.delete_execution(uuid4()) == 0


@pytest.mark.parametrize("table", ["conversations", "workflow_executions"])
def test_an_id_does_not_change(books: Books, table: str) -> None:
    conversation = books.conversation()
    row: UUID = conversation if table == "conversations" else books.execution()
    change = books.change_conversation if table == "conversations" else books.change_execution
    with pytest.raises(errors.ObjectNotInPrerequisiteState) as refused:
        change(row, id=uuid4())
    diagnostic = refused.value.diag
    assert (diagnostic.table_name, diagnostic.column_name) == (table, "id")
    assert diagnostic.message_primary == (
        f"the id of a row of chatter.{table} can't change: messages refer to it"
    )
    assert diagnostic.message_hint is not None
    assert "move the messages" in diagnostic.message_hint
