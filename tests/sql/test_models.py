"""chatter_db.models says what the catalog says: the two can't disagree."""

import re
import typing
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any, Literal
from uuid import UUID

import pytest
from sqlalchemy import Column, Table, create_engine

from chatter_db.models import (
    MAX_CONTENT_BYTES,
    MAX_COST,
    MAX_NAME,
    MAX_TITLE,
    MAX_TOKENS,
    Base,
    Xid8,
)

from .books import Books

TABLES = {str(mapper.local_table.description): mapper for mapper in Base.registry.mappers}
# The books, which an app fills with everything but what follows from it.
WRITTEN_BY_THE_APP = {"users", "conversations", "workflow_executions", "messages", "tool_calls"}
DIALECT = create_engine("postgresql+psycopg://").dialect
TYPES: dict[object, str] = {
    str: "text",
    int: "bigint",
    bool: "boolean",
    float: "double precision",
    Decimal: "numeric",
    datetime: "timestamp with time zone",
    timedelta: "interval",
    bytes: "bytea",
    IPv4Address: "inet",
    Xid8: "xid8",
    UUID: "uuid",
    dict[str, Any]: "jsonb",
    list[dict[str, Any]]: "jsonb",
}


def table_of(name: str) -> Table:
    table = TABLES[name].local_table
    assert isinstance(table, Table)
    return table


def annotations(name: str) -> dict[str, object]:
    """Column name to the type that the model's attribute is annotated with, without None."""
    mapper = TABLES[name]
    hints = typing.get_type_hints(mapper.class_)
    found = {}
    for attribute in mapper.column_attrs:
        (mapped,) = typing.get_args(hints[attribute.key])
        alternatives = [part for part in typing.get_args(mapped) if part is not type(None)]
        optional = type(None) in typing.get_args(mapped)
        found[attribute.columns[0].name] = alternatives[0] if optional else mapped
    return found


def optional(name: str) -> set[str]:
    """Columns whose attribute may be None."""
    mapper = TABLES[name]
    hints = typing.get_type_hints(mapper.class_)
    return {
        attribute.columns[0].name
        for attribute in mapper.column_attrs
        if type(None) in typing.get_args(typing.get_args(hints[attribute.key])[0])
    }


def test_every_table_has_a_model(books: Books) -> None:
    tables = books.rows(
        "select relname::text from pg_class where relnamespace = 'chatter'::regnamespace "
        "and relkind in ('r', 'p') and relname <> 'alembic_version'"
    )
    assert {name for (name,) in tables} == set(TABLES)
    assert {table_of(name).schema for name in TABLES} == {"chatter"}


@pytest.fixture(params=sorted(TABLES))
def table(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_columns_are_those_of_the_catalog(books: Books, table: str) -> None:
    catalog = books.rows(
        "select a.attname::text, format_type(a.atttypid, a.atttypmod), not a.attnotnull, "
        "a.attgenerated <> '', a.atthasdef and a.attgenerated = '' or a.attidentity <> '' "
        "from pg_attribute as a where a.attrelid = %s::regclass and a.attnum > 0 "
        "and not a.attisdropped order by a.attnum",
        f"chatter.{table}",
    )
    columns: list[Column[Any]] = list(table_of(table).columns)
    assert [column.name for column in columns] == [row[0] for row in catalog]
    hints = annotations(table)
    kept = trigger_filled(books, table)
    for column, (name, type_, nullable, generated, has_default) in zip(
        columns, catalog, strict=True
    ):
        hint = hints[name]
        assert TYPES[str if typing.get_origin(hint) is Literal else hint] == type_, name
        assert column.type.compile(dialect=DIALECT).lower() == type_, name
        assert column.nullable is nullable, name
        assert (name in optional(table)) is nullable, name
        assert (column.computed is not None) is generated, name
        # What Postgres fills is fetched after an insert that left it out.
        filled = has_default or name in kept
        assert (column.server_default is not None) is (filled or generated), name


def trigger_filled(books: Books, table: str) -> set[str]:
    """Columns without a default that a trigger fills in new rows or after them."""
    filled = set(kept_columns(books, table))
    return filled | ({"total_tokens", "usage_status"} if table == "messages" else set())


def test_primary_and_foreign_keys(books: Books, table: str) -> None:
    model = table_of(table)
    primary = books.rows(
        "select a.attname::text from pg_index as i join pg_attribute as a "
        "on a.attrelid = i.indrelid and a.attnum = any(i.indkey) "
        "where i.indrelid = %s::regclass and i.indisprimary order by a.attnum",
        f"chatter.{table}",
    )
    assert [(column.name,) for column in model.primary_key] == primary
    catalog = books.rows(
        "select (select a.attname::text from pg_attribute as a "
        "        where a.attrelid = k.conrelid and a.attnum = k.conkey[1]), "
        "  (select 'chatter.' || c.relname from pg_class as c where c.oid = k.confrelid), "
        "  case k.confdeltype when 'r' then 'RESTRICT' when 'n' then 'SET NULL' "
        "    when 'c' then 'CASCADE' end "
        "from pg_constraint as k where k.conrelid = %s::regclass and k.contype = 'f'",
        f"chatter.{table}",
    )
    modelled = [
        (key.parent.name, key.target_fullname.rpartition(".")[0], key.ondelete)
        for key in model.foreign_keys
    ]
    assert sorted(modelled) == sorted(catalog)
    unique = books.rows(
        "select a.attname::text from pg_constraint as k join pg_attribute as a "
        "on a.attrelid = k.conrelid and a.attnum = any(k.conkey) "
        "where k.conrelid = %s::regclass and k.contype = 'u'",
        f"chatter.{table}",
    )
    assert [(column.name,) for column in model.columns if column.unique] == unique


def test_literals_are_the_values_of_the_checks(books: Books, table: str) -> None:
    checks = books.rows(
        "select a.attname::text, array(select m[1] from regexp_matches("
        "    pg_get_constraintdef(k.oid), '''([^'']*)''::text', 'g') as m) "
        "from pg_constraint as k join pg_attribute as a "
        "on a.attrelid = k.conrelid and a.attnum = k.conkey[1] "
        "where k.conrelid = %s::regclass and k.contype = 'c' and cardinality(k.conkey) = 1 "
        "and pg_get_constraintdef(k.oid) like '%% = ANY (ARRAY[%%'",
        f"chatter.{table}",
    )
    modelled = {
        name: sorted(typing.get_args(hint))
        for name, hint in annotations(table).items()
        if typing.get_origin(hint) is Literal
    }
    assert modelled or table not in WRITTEN_BY_THE_APP
    assert {name: sorted(values) for name, values in checks} == modelled


def test_limits_are_those_of_the_checks(books: Books) -> None:
    limits = {
        "users_external_id": MAX_NAME,
        "conversations_external_id": MAX_NAME,
        "conversations_title": MAX_TITLE,
        "workflow_executions_workflow_name": MAX_NAME,
        "workflow_executions_correlation_id": MAX_NAME,
        "tool_calls_tool_name": MAX_NAME,
        "messages_content": MAX_CONTENT_BYTES,
        "messages_prompt_tokens": MAX_TOKENS,
        "messages_completion_tokens": MAX_TOKENS,
        "messages_total_tokens": 2 * MAX_TOKENS,
        "messages_cache_read_tokens": MAX_TOKENS,
        "messages_cache_write_tokens": MAX_TOKENS,
        "messages_reasoning_tokens": MAX_TOKENS,
        "messages_cost": MAX_COST,
    }
    checks = books.rows(
        "select conname::text, pg_get_constraintdef(oid) from pg_constraint "
        "where conname = any(%s)",
        [f"{name}_check" for name in limits],
    )
    assert limits == {
        name.removesuffix("_check"): max(map(int, re.findall(r"\d+", check)))
        for name, check in checks
    }


def kept_columns(books: Books, table: str) -> list[str]:
    """Columns that say of themselves that triggers keep them."""
    rows = books.rows(
        "select a.attname::text from pg_attribute as a where a.attrelid = %s::regclass "
        "and a.attnum > 0 and col_description(a.attrelid, a.attnum) like 'Kept by trigger: %%' "
        "order by a.attnum",
        f"chatter.{table}",
    )
    return [name for (name,) in rows]


@pytest.mark.parametrize("table", sorted(WRITTEN_BY_THE_APP))
def test_what_is_kept_or_derived_is_exactly_what_the_app_may_not_insert(
    books: Books, table: str
) -> None:
    refused = books.rows(
        "select a.attname::text from pg_attribute as a where a.attrelid = %s::regclass "
        "and a.attnum > 0 and not a.attisdropped "
        "and not has_column_privilege('chatter_app', a.attrelid, a.attnum, 'insert')",
        f"chatter.{table}",
    )
    derived = [column.name for column in table_of(table).columns if column.computed is not None]
    assert {name for (name,) in refused} == {*kept_columns(books, table), *derived}
