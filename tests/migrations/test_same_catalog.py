"""Two roads, one schema: the migrations and the files of sql/schema end in the same catalog."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from chatter_db import migrating
from chatter_db.queries import resource

from .catalog import FLOORS, QUERIES, catalog

SCHEMA_FILES = sorted((resource("sql") / "schema").glob("*.sql"))


def load_schema(url: str) -> None:
    """Runs the files of sql/schema in order."""
    with psycopg.connect(url) as connection:
        for file in SCHEMA_FILES:
            connection.execute(file.read_bytes())


def test_migrations_and_schema_files_agree(new_database: Callable[[], str]) -> None:
    migrated, loaded = new_database(), new_database()
    migrating.migrate(migrated)
    load_schema(loaded)
    left, right = catalog(migrated), catalog(loaded)
    # Kind by kind, so that a failure shows the rows that differ.
    for kind in QUERIES:
        assert left[kind] == right[kind], kind


def test_the_catalog_is_not_empty(url: str) -> None:
    found = {kind: len(rows) for kind, rows in catalog(url).items()}
    assert found.keys() == FLOORS.keys()
    assert {kind: n for kind, n in found.items() if n < FLOORS[kind]} == {}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("schemas", "create role intruder; alter schema chatter owner to intruder"),
        ("relations", "alter table chatter.messages set (fillfactor = 50)"),
        ("columns", "alter table chatter.messages alter kind drop default"),
        ("columns", 'alter table chatter.messages alter content type text collate "C"'),
        ("constraints", "alter table chatter.messages drop constraint messages_cost_check"),
        ("indexes", "create index on chatter.messages (role)"),
        ("views", "create view chatter.v as select 1 as one"),
        ("functions", "alter function chatter.recount() cost 7"),
        ("triggers", "alter table chatter.messages disable trigger _100_complete"),
        ("foreign_key_triggers", "alter table chatter.tool_calls disable trigger all"),
        ("types", "create domain chatter.d as text"),
        ("policies", "create policy p on chatter.messages"),
        ("grants", "grant select (content) on chatter.messages to chatter_reader"),
        ("grants", "grant execute on function chatter.recount() to public"),
        ("comments", "comment on column chatter.messages.role is null"),
        ("comments", "comment on trigger _100_complete on chatter.messages is 'other'"),
    ],
)
def test_the_comparison_sees_a_difference(url: str, kind: str, change: str) -> None:
    before = catalog(url)
    with psycopg.connect(url) as connection:
        connection.execute(change)
    try:
        after = catalog(url)
    finally:
        if "intruder" in change:
            with psycopg.connect(url) as connection:
                connection.execute("reassign owned by intruder to current_user")
                connection.execute("drop role intruder")
    assert after[kind] != before[kind]


def test_the_first_version_is_frozen_as_text() -> None:
    """A frozen file carries its own SQL: it reads nothing from sql/."""
    versions = resource("migrations") / "versions"
    for file in versions.glob("*.py"):
        assert Path(file.with_suffix(".sql")).is_file()
        assert "resource(" not in file.read_text("utf-8")
