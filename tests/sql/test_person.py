"""What is somebody's: exported, and erased, by the statements of .github/OPERATIONS.md."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.sql.books import Books
from tests.sql.test_usage import fold_all

# A key, and a browser that signed in with it.
KEY = """
with k as (
  insert into chatter.api_keys (user_id, name, prefix, hash)
  values (%(user)s, %(name)s::text, 'chatter_zYYx', sha256(convert_to(%(name)s::text, 'UTF8')))
  returning *
)
insert into chatter.browser_sessions (user_id, hash, user_agent, expires_at, api_key_id)
select k.user_id, k.hash, k.name, chatter.clock() + interval '1 day', k.id from k
"""
TABLES = """
select schemaname || '.' || tablename from pg_tables where schemaname in ('chatter', 'analytics')
"""
OPERATIONS = Path(__file__).parents[2] / ".github" / "OPERATIONS.md"


def recipe(name: str) -> list[list[str]]:
    """The statements of each block: to export, to erase, to revoke a key."""
    section = OPERATIONS.read_text("utf-8").split("## A person's data")[1].split("\n## ")[0]
    blocks = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return [
        [each for each in block.replace("'ada'", f"'{name}'").split(";\n") if each.strip()]
        for block in blocks
    ]


def person(books: Books, name: str) -> None:
    """Somebody whose name is wherever a text can be."""
    text = {"metadata": {"name": name}}
    user = books.user(name, **text)
    conversation = books.conversation(user_id=user, external_id=name, title=name, **text)
    shared = books.conversation(title="of several")
    for place in (conversation, shared, None):
        run = books.execution(place, user_id=user, status="failed", error_message=name, **text)
        books.tool_call(run, status="failed", error_message=name)
        if place is not None:
            books.message(
                place, execution_id=run, content=name, tool_calls=[{"args": name}], cost="0.1",
                error_message=name, **text,
            )  # fmt: skip
    for _ in range(5):
        books.connection.execute(
            "insert into chatter.security_events (event_type, user_id, user_agent, details)"
            " values ('login_failure', %s, %s, jsonb_build_object('name', %s::text))",
            (user, name, name),
        )
    books.connection.execute(
        "insert into chatter.passwords (user_id, hash) values (%s, '$argon2id$' || %s)",
        (user, name),
    )
    books.connection.execute(KEY, {"user": user, "name": name})


def holding(books: Books, text: str) -> set[str]:
    """The tables that have `text` in a row."""
    tables = [name for (name,) in books.rows(TABLES)]
    assert len(tables) > 30
    found = "select exists (select from {} as t where t::text like '%{}%')"
    return {name for name in tables if books.value(found.format(name, text))}


def test_exporting_and_erasing_what_is_somebodys(own_books: Books) -> None:
    books = own_books
    name, other = f"ada-{uuid4().hex}", f"bob-{uuid4().hex}"
    for each in (name, other):
        person(books, each)
    fold_all(books)
    held = holding(books, name)
    export, erase, revoke = recipe(name)

    told: dict[str, list[str]] = {}
    for statement in export:
        done = books.connection.execute(statement.encode())
        if "to_jsonb" in statement and done.description:
            table = re.findall(r"from (chatter\.\w+)", statement)[0]
            told[table] = [str(row) for row in done.fetchall()]
    assert set(told) == held - {"chatter.passwords"}
    assert all(told.values())
    assert other not in str(told)
    assert len(told["chatter.workflow_executions"]) == 3

    totals = books.rows("select cost, calls from analytics.usage_by_user_live order by 1, 2")
    assert books.connection.execute(revoke[0].encode()).rowcount == 2
    for statement in erase:
        books.connection.execute(statement.encode())
    assert holding(books, name) == set()
    assert holding(books, other) == held
    assert books.rows("select cost, calls from analytics.usage_by_user_live order by 1, 2") == (
        totals
    )
    assert books.findings() == {}
    # Afterwards the record of the door is as closed as before.
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
        books.connection.execute("delete from chatter.security_events")


@pytest.mark.skipif(shutil.which("psql") is None, reason="there is no psql here")
def test_an_export_by_psql_is_json_line_by_line(url: str, own_books: Books) -> None:
    name = f"ada-{uuid4().hex}"
    person(own_books, name)
    export, *_ = recipe(name)
    options = ["-XqAt", "-v", "ON_ERROR_STOP=1"]
    done = subprocess.run(
        ["psql", *options, "-d", url],
        input=";\n".join(export),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["external_id"] == name
    assert len(lines) > 10


def test_nobodys_name_exports_nothing(own_books: Books) -> None:
    """And not everybody's."""
    person(own_books, "ada")
    export, *_ = recipe("adda")
    own_books.connection.execute(export[0].encode())
    with pytest.raises(psycopg.errors.NullValueNotAllowed, match="needs a user"):
        own_books.connection.execute(export[1].encode())
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        own_books.connection.execute(export[2].encode())
