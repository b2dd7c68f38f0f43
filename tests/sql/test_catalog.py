"""The catalog of the schema keeps the conventions of 000_schema.sql."""

import re

import pytest
from psycopg import sql

from .books import Books

# Postgres can only inline a function without a SET clause; these run in every row's defaults.
INLINED = {"bell()", "clock()", "conversation_payload(conversations)", "uuid7()"} | {
    "cost_by(prices,bigint,bigint,bigint,bigint)",
    "price_at(text,text,timestamp with time zone)",
    "price_details(prices)",
}
# A second, partial index on the columns of another one.
NAMED_BY_PREDICATE = {
    "messages_failed_idx",
    "workflow_executions_failed_idx",
    "workflow_executions_running_idx",
}
# Its first part is an expression, which has no column's name.
NAMED_BY_EXPRESSION = {"security_events_api_key_id_event_type_created_at_idx"}
# Reads alone, or not even that.
NOT_VOLATILE = [
    "acting_user",
    "bell",
    "block_lifted_at",
    "blocked_until",
    "continued_by",
    "conversation_payload",
    "cost_by",
    "counted_address",
    "event_batch",
    "event_payload",
    "event_snapshot",
    "events_after",
    "events_now",
    "events_oldest",
    "may_be_app",
    "next_xact_id",
    "owns_conversation",
    "owns_execution",
    "owns_message",
    "parse_position",
    "position_end",
    "price_at",
    "price_details",
    "stream_name",
]
OURS = "chatter.alembic_version"


def names(books: Books, statement: str) -> list[str]:
    return [str(row[0]) for row in books.rows(statement)]


@pytest.mark.parametrize(
    ("kind", "floor", "objects"),
    [
        (
            "relations",
            5,
            "select c.relname, obj_description(c.oid, 'pg_class') from pg_class as c "
            "where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and {ours}",
        ),
        (
            "columns",
            60,
            "select c.relname || '.' || a.attname, col_description(c.oid, a.attnum) "
            "from pg_class as c join pg_attribute as a on a.attrelid = c.oid "
            "where c.relkind in ('r', 'p', 'v', 'm', 'c', 'f') and a.attnum > 0 "
            "and not a.attisdropped and {ours}",
        ),
        (
            # An index that is there for a constraint is described by it.
            "indexes",
            8,
            "select c.relname, obj_description(c.oid, 'pg_class') from pg_class as c "
            "where c.relkind in ('i', 'I') and {ours} and not exists "
            "(select from pg_constraint as k where k.conindid = c.oid and k.contype in "
            "('p', 'u', 'x'))",
        ),
        (
            "functions",
            15,
            "select c.oid::regprocedure, obj_description(c.oid, 'pg_proc') from pg_proc as c "
            "where c.pronamespace in ('chatter'::regnamespace, 'analytics'::regnamespace)",
        ),
        (
            "triggers",
            20,
            "select c.relname || '.' || t.tgname, obj_description(t.oid, 'pg_trigger') "
            "from pg_trigger as t join pg_class as c on c.oid = t.tgrelid "
            "where not t.tgisinternal and {ours}",
        ),
        (
            "types",
            1,
            # Row types of tables and array types come along with others.
            "select c.typname, obj_description(c.oid, 'pg_type') from pg_type as c "
            "left join pg_class as r on r.oid = c.typrelid "
            "where c.typnamespace = 'chatter'::regnamespace and c.typcategory <> 'A' "
            "and (r.oid is null or r.relkind = 'c')",
        ),
        (
            "policies",
            0,
            "select c.relname || '.' || p.polname, obj_description(p.oid, 'pg_policy') "
            "from pg_policy as p join pg_class as c on c.oid = p.polrelid where {ours}",
        ),
        (
            "roles",
            3,
            "select c.rolname, shobj_description(c.oid, 'pg_authid') from pg_roles as c "
            "where c.rolname like 'chatter\\_%'",
        ),
        (
            "schemas",
            1,
            "select c.nspname, obj_description(c.oid, 'pg_namespace') from pg_namespace as c "
            "where c.nspname in ('chatter', 'analytics')",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 12 else "",
)
def test_everything_says_what_it_is_for(books: Books, kind: str, floor: int, objects: str) -> None:
    # Alembic makes its version table and describes nothing.
    ours = (
        "c.relnamespace in ('chatter'::regnamespace, 'analytics'::regnamespace) "
        "and c.relname not like 'alembic_version%'"
    )
    found = books.rows(objects.replace("{ours}", ours))
    assert len(found) >= floor, kind
    assert [name for name, comment in found if not (comment or "").strip()] == []


# --- functions


def test_functions_pin_their_search_path(books: Books) -> None:
    found = books.rows(
        "select replace(p.oid::regprocedure::text, 'chatter.', ''), p.prosecdef, p.proconfig "
        "from pg_proc as p where p.pronamespace = 'chatter'::regnamespace"
    )
    # The temporary schema last: unless it is named, its types come before all others.
    pin = "search_path=pg_catalog, pg_temp"
    pinned = {name for name, _, config in found if config and pin in config}
    assert {name for name, _, _ in found} - pinned == INLINED
    definers = {name for name, security_definer, _ in found if security_definer}
    assert definers
    assert definers <= pinned


def test_no_function_looks_for_types_in_the_temporary_schema_first(books: Books) -> None:
    assert (
        names(
            books,
            "select p.oid::regprocedure::text from pg_proc as p, unnest(p.proconfig) as c "
            "where p.pronamespace in ('chatter'::regnamespace, 'analytics'::regnamespace) "
            "and c like 'search_path=%' and c <> 'search_path=pg_catalog, pg_temp'",
        )
        == []
    )


def test_functions_that_are_inlined_name_everything_in_full(books: Books) -> None:
    # Under a hostile search path that shadows what they use.
    with books.connection.transaction(force_rollback=True):
        books.connection.execute("create schema hostile")
        for function, type_ in (("clock_timestamp", "timestamptz"), ("uuidv7", "uuid")):
            books.connection.execute(
                sql.SQL("create function {}() returns {} language sql as 'select null::{}'").format(
                    sql.Identifier("hostile", function), sql.SQL(type_), sql.SQL(type_)
                )
            )
        books.connection.execute("set local search_path = hostile, pg_catalog")
        assert books.row("select chatter.clock() is not null, chatter.uuid7() is not null") == (
            True,
            True,
        )


def test_security_definer_functions_are_those_that_write_or_read_for_the_app(books: Books) -> None:
    assert names(
        books,
        "select proname from pg_proc where pronamespace = 'chatter'::regnamespace and prosecdef "
        "order by proname",
    ) == [
        "apply_message_deltas",
        "blocked_until",
        "events_after",
        "events_now",
        "events_oldest",
        "owns_conversation",
        "owns_execution",
        "owns_message",
        "parse_position",
        "prune_events",
        "prune_security",
        "record_event",
        "sweep_executions",
        "tg_conversations__events",
        "tg_messages__book",
        "tg_messages__events_of_change",
        "tg_messages__totals",
        "tg_refuse_orphans",
        "tg_security__events",
        "tg_security_events__alert",
        "tg_tool_calls__deltas",
        "tg_tool_calls__erase",
        "tg_tool_calls__events",
        "tg_tool_calls__totals",
        "tg_workflow_executions__erase",
        "tg_workflow_executions__events",
    ]


def test_volatility_is_stated(books: Books) -> None:
    """The others are volatile: they read a clock, write, or raise."""
    assert (
        names(
            books,
            "select proname from pg_proc where pronamespace = 'chatter'::regnamespace "
            "and provolatile <> 'v' order by proname",
        )
        == NOT_VOLATILE
    )


def test_trigger_functions_are_called_by_triggers_alone(books: Books) -> None:
    functions = names(
        books,
        "select proname from pg_proc where pronamespace = 'chatter'::regnamespace "
        "and prorettype = 'trigger'::regtype",
    )
    assert functions
    assert [name for name in functions if not name.startswith("tg_")] == []
    used = names(
        books,
        "select distinct p.proname from pg_trigger as t join pg_proc as p on p.oid = t.tgfoid "
        "where p.pronamespace = 'chatter'::regnamespace",
    )
    assert sorted(functions) == sorted(used)


def test_triggers_are_numbered_and_on(books: Books) -> None:
    found = books.rows(
        "select t.tgname::text, t.tgenabled::text from pg_trigger as t "
        "join pg_class as c on c.oid = t.tgrelid "
        "where c.relnamespace = 'chatter'::regnamespace and not t.tgisinternal"
    )
    assert len(found) >= 20
    assert [name for name, _ in found if not re.fullmatch(r"_\d{3}_[a-z_]+", name)] == []
    assert {enabled for _, enabled in found} == {"O"}


# --- constraints and indexes

SUFFIXES = {"c": "check", "u": "key", "f": "fkey", "p": "pkey"}


def test_constraints_are_named_after_table_and_columns(books: Books) -> None:
    found = books.rows(
        "select c.relname::text, k.conname::text, k.contype::text, array("
        "  select a.attname::text from unnest(k.conkey) with ordinality as u (attnum, place) "
        "  join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.attnum "
        "  order by u.place) "
        "from pg_constraint as k join pg_class as c on c.oid = k.conrelid "
        # Postgres 18 lists `not null` here, under names of its own.
        f"where c.relnamespace = 'chatter'::regnamespace and c.oid <> '{OURS}'::regclass "
        "and k.contype <> 'n'"
    )
    assert len(found) >= 40
    misnamed = []
    for table, name, kind, columns in found:
        if kind == "p":
            good = {f"{table}_pkey"}
        else:
            # A check of several columns bears the name of the one it is about.
            parts = {"_".join(columns), *(columns if kind == "c" else ())}
            good = {f"{table}_{part}_{SUFFIXES[kind]}" for part in parts}
        if name not in good:
            misnamed.append((name, good))
    assert misnamed == []


def test_indexes_are_named_after_table_and_columns(books: Books) -> None:
    found = books.rows(
        "select t.relname::text, c.relname::text, i.indisunique, array("
        "  select a.attname::text from unnest(i.indkey) with ordinality as u (attnum, place) "
        "  join pg_attribute as a on a.attrelid = t.oid and a.attnum = u.attnum "
        "  order by u.place) "
        "from pg_index as i join pg_class as c on c.oid = i.indexrelid "
        "join pg_class as t on t.oid = i.indrelid "
        "where t.relnamespace = 'chatter'::regnamespace and not exists "
        "(select from pg_constraint as k where k.conindid = c.oid and k.contype in ('p', 'u'))"
    )
    assert len(found) >= 8
    wrong = {
        name
        for table, name, unique, columns in found
        if name != f"{table}_{'_'.join(columns)}_{'key' if unique else 'idx'}"
    }
    assert wrong == NAMED_BY_PREDICATE | NAMED_BY_EXPRESSION


def test_foreign_keys_say_what_a_deletion_does(books: Books) -> None:
    found = dict(
        books.rows(
            "select k.conname::text, k.confdeltype::text from pg_constraint as k "
            "where k.connamespace = 'chatter'::regnamespace and k.contype = 'f'"
        )
    )
    # r restrict, n set null, c cascade; a (no action) is what nobody chose.
    assert found == {
        "alerts_rule_name_fkey": "r",
        "api_keys_user_id_fkey": "c",
        "browser_sessions_api_key_id_fkey": "c",
        "browser_sessions_user_id_fkey": "c",
        "passwords_user_id_fkey": "c",
        "repriced_messages_repricing_id_fkey": "r",
        "security_events_user_id_fkey": "r",
        "conversations_user_id_fkey": "r",
        "workflow_executions_conversation_id_fkey": "r",
        "workflow_executions_user_id_fkey": "r",
        "tool_calls_execution_id_fkey": "r",
        "tool_calls_message_id_fkey": "n",
    }


def test_references_have_an_index(books: Books) -> None:
    """Else deleting a parent reads every row; the last two are references without `references`."""
    references = books.rows(
        "select k.conrelid::regclass::text, k.conkey[1] from pg_constraint as k "
        "where k.connamespace = 'chatter'::regnamespace and k.contype = 'f' "
        "union all select 'chatter.messages', a.attnum from pg_attribute as a "
        "where a.attrelid = 'chatter.messages'::regclass "
        "and a.attname in ('conversation_id', 'execution_id')"
    )
    assert len(references) == 14
    for table, column in references:
        leading = books.value(
            "select count(*) from pg_index where indrelid = %s::regclass and indkey[0] = %s "
            # A partial index serves if it leaves out nothing but nulls.
            "and (indpred is null or pg_get_expr(indpred, indrelid) like '(%% IS NOT NULL)')",
            table,
            column,
        )
        assert leading >= 1, (table, column)


def test_every_table_can_be_published(books: Books) -> None:
    """Else an UPDATE fails, and what made it, as soon as a publication is for all tables."""
    unidentified = books.rows(
        "select c.oid::regclass::text from pg_class as c "
        "where c.relkind = 'r' and c.relnamespace in "
        "('chatter'::regnamespace, 'analytics'::regnamespace) and c.relreplident <> 'f' "
        "and not exists (select from pg_index as i where i.indrelid = c.oid and i.indisprimary)"
    )
    assert unidentified == []
