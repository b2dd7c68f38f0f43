"""900_roles.sql: who may do what, and what is refused when acting as that role."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors, sql

from .books import Books, RunTotals, Totals

APP, READER, WORKER = "chatter_app", "chatter_reader", "chatter_worker"

MESSAGE = (
    "conversation_id execution_id role kind content tool_calls tool_call_id provider_used "
    "model_used prompt_tokens completion_tokens total_tokens cache_read_tokens "
    "cache_write_tokens reasoning_tokens cost cost_source usage_status usage response_time_ms "
    "time_to_first_token_ms finish_reason status error_type error_message correlation_id metadata"
)

# role, privilege, table: its columns; * is the whole table.
COLUMNS: dict[tuple[str, str, str], str] = {
    (APP, "SELECT", "users"): "*",
    (APP, "SELECT", "conversations"): "*",
    (APP, "SELECT", "workflow_executions"): "*",
    (APP, "SELECT", "messages"): "*",
    (APP, "SELECT", "tool_calls"): "*",
    (APP, "SELECT", "recorders"): "*",
    (APP, "SELECT", "prices"): "*",
    **{(READER, "SELECT", table): "*" for table in ("prices", "repricings", "repriced_messages")},
    (APP, "SELECT", "alembic_version"): "*",
    (APP, "INSERT", "users"): "id external_id role metadata created_at",
    (APP, "UPDATE", "users"): "metadata",
    (APP, "INSERT", "conversations"): ("id external_id user_id title status metadata created_at"),
    (APP, "UPDATE", "conversations"): "title status metadata",
    (APP, "INSERT", "workflow_executions"): (
        "id conversation_id user_id workflow_name status correlation_id started_at finished_at "
        "error_type error_message metadata recorder_id"
    ),
    (APP, "UPDATE", "workflow_executions"): (
        "status finished_at error_type error_message metadata recorder_id"
    ),
    (APP, "INSERT", "recorders"): "id host process_id",
    (APP, "UPDATE", "recorders"): "heartbeat_at stopped_at",
    (APP, "INSERT", "messages"): f"id {MESSAGE} created_at",
    (APP, "UPDATE", "messages"): MESSAGE,
    (APP, "INSERT", "tool_calls"): (
        "id execution_id message_id tool_call_id tool_name status started_at duration_ms "
        "error_type error_message"
    ),
    (APP, "UPDATE", "tool_calls"): "status started_at duration_ms error_type error_message",
    **{
        (APP, "SELECT", table): "*"
        for table in (
            "recorders",
            "events",
            "security_events",
            "alerts",
            "passwords",
            "api_keys",
            "browser_sessions",
        )
    },
    (APP, "INSERT", "security_events"): (
        "event_type severity user_id ip_address user_agent correlation_id details"
    ),
    (APP, "INSERT", "passwords"): "user_id hash changed_at",
    (APP, "UPDATE", "passwords"): "hash changed_at",
    (APP, "INSERT", "api_keys"): "user_id name prefix hash expires_at",
    (APP, "UPDATE", "api_keys"): "expires_at last_used_at revoked_at",
    (APP, "INSERT", "browser_sessions"): (
        "user_id hash ip_address user_agent expires_at api_key_id"
    ),
    (APP, "UPDATE", "browser_sessions"): "revoked_at",
    (READER, "SELECT", "users"): "id external_id role created_at",
    (READER, "SELECT", "conversations"): (
        "id external_id user_id status created_at message_count prompt_tokens completion_tokens "
        "total_tokens total_cost unpriced_calls last_message_at"
    ),
    (READER, "SELECT", "workflow_executions"): (
        "id conversation_id user_id workflow_name status correlation_id started_at finished_at "
        "error_type model_calls tool_calls prompt_tokens completion_tokens total_tokens total_cost"
    ),
    (READER, "SELECT", "messages"): (
        "id conversation_id execution_id role kind tool_call_id provider_used model_used "
        "prompt_tokens completion_tokens total_tokens cache_read_tokens cache_write_tokens "
        "reasoning_tokens cost cost_source usage_status usage response_time_ms "
        "time_to_first_token_ms finish_reason status error_type correlation_id created_at "
        "model_call"
    ),
    (READER, "SELECT", "tool_calls"): (
        "id execution_id message_id tool_call_id tool_name status started_at duration_ms error_type"
    ),
    (READER, "SELECT", "alembic_version"): "*",
    (WORKER, "SELECT", "workflow_executions"): "*",
    (WORKER, "UPDATE", "workflow_executions"): "status finished_at error_type error_message",
    (WORKER, "SELECT", "alembic_version"): "*",
}

FUNCTIONS = {
    (APP, "clock()"),
    (APP, "uuid7()"),
    (APP, "lock_conversations(uuid[])"),
    (APP, "erase_conversation(uuid)"),
    (APP, "erase_texts(uuid, uuid)"),
    (APP, "blocked_until(inet, uuid)"),
    (APP, "acting_user()"),
    (APP, "act_for(uuid)"),
    (APP, "may_be_app()"),
    *((APP, f"owns_{what}(uuid)") for what in ("conversation", "execution", "message")),
    (APP, "events_now()"),
    (APP, "events_after(text, integer, uuid, uuid, uuid, text[], text[], text)"),
    (APP, "bell()"),
    (APP, "price_at(text, text, timestamp with time zone)"),
    (APP, "cost_by(prices, bigint, bigint, bigint, bigint)"),
    (APP, "price_details(prices)"),
    (APP, "events_oldest()"),
    (APP, "parse_position(text)"),
    (WORKER, "prune_events(timestamp with time zone)"),
    (WORKER, "clock()"),
    (WORKER, "events_now()"),
    (WORKER, "events_after(text, integer, uuid, uuid, uuid, text[], text[], text)"),
    (WORKER, "prune_security(timestamp with time zone)"),
    (WORKER, "sweep_executions(interval)"),
    (WORKER, "bell()"),
    (READER, "clock()"),
}

# Of the schema analytics: what reader and worker may call, and what the worker may besides.
ANALYTICS = {"latency_bin(double precision)", "bin_ms(smallint)"} | {
    "quarter_hour(timestamp with time zone)",
    "user_usage(timestamp with time zone, timestamp with time zone)",
    "user_totals(timestamp with time zone, timestamp with time zone)",
    "tools_between(timestamp with time zone, timestamp with time zone)",
    "local_time(text, text)",
    "period_end(text, text, text)",
    "moment(text, text)",
    "known_cost(numeric, numeric, numeric)",
    "usage_between(timestamp with time zone, timestamp with time zone)",
    "latency_between(timestamp with time zone, timestamp with time zone)",
    "usage_steps(timestamp with time zone, timestamp with time zone, text, text)",
    "grain(timestamp with time zone, timestamp with time zone, text)",
    "changed_days(bigint)",
}
WORK = {"fold(integer)", "refresh(boolean)"}


@contextmanager
def acting_as(books: Books, role: str) -> Iterator[None]:
    """Statements inside run with the rights of `role`."""
    books.connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    try:
        yield
    finally:
        books.connection.execute("reset role")


# --- the matrix


def test_grants_on_tables_and_columns(books: Books) -> None:
    found = books.rows(
        "select pg_get_userbyid(a.grantee)::text, a.privilege_type, c.relname::text, '*' "
        "from pg_class as c cross join lateral aclexplode(c.relacl) as a "
        "where c.relnamespace = 'chatter'::regnamespace and a.grantee <> c.relowner "
        "union all "
        "select pg_get_userbyid(a.grantee)::text, a.privilege_type, c.relname::text, "
        "  string_agg(t.attname, ' ' order by t.attnum) "
        "from pg_class as c join pg_attribute as t on t.attrelid = c.oid "
        "cross join lateral aclexplode(t.attacl) as a "
        "where c.relnamespace = 'chatter'::regnamespace group by 1, 2, 3"
    )
    granted = {
        (role, privilege, table): set(columns.split()) for role, privilege, table, columns in found
    }
    assert granted == {key: set(columns.split()) for key, columns in COLUMNS.items()}


def test_grants_on_functions(books: Books) -> None:
    found = books.rows(
        "select pg_get_userbyid(a.grantee)::text, "
        "  p.proname || '(' || oidvectortypes(p.proargtypes) || ')', a.privilege_type "
        "from pg_proc as p "
        # Without an acl, everybody may execute a function.
        "cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a "
        "where p.pronamespace = 'chatter'::regnamespace and a.grantee <> p.proowner"
    )
    assert {(role, name) for role, name, _ in found} == FUNCTIONS


def test_grants_on_analytics(books: Books) -> None:
    functions = books.rows(
        "select pg_get_userbyid(a.grantee)::text, "
        "  p.proname || '(' || oidvectortypes(p.proargtypes) || ')' "
        "from pg_proc as p "
        "cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a "
        "where p.pronamespace = 'analytics'::regnamespace and a.grantee <> p.proowner"
    )
    assert set(functions) == {
        *((role, name) for role in (READER, WORKER) for name in ANALYTICS),
        *((WORKER, name) for name in WORK),
        (APP, "local_time(text, text)"),
        (APP, "moment(text, text)"),
        (APP, "period_end(text, text, text)"),
        (APP, "known_cost(numeric, numeric, numeric)"),
    }
    relations = books.rows(
        "select pg_get_userbyid(a.grantee)::text, c.relname::text, a.privilege_type "
        "from pg_class as c cross join lateral aclexplode(c.relacl) as a "
        "where c.relnamespace = 'analytics'::regnamespace and a.grantee <> c.relowner"
    )
    names = books.rows(
        "select relname::text from pg_class where relnamespace = 'analytics'::regnamespace "
        "and relkind in ('r', 'v', 'm')"
    )
    assert len(names) > 25
    expected = {(role, name, "SELECT") for role in (READER, WORKER) for (name,) in names}
    assert set(relations) == expected | {(APP, "usage_user_day_live", "SELECT")}
    columns = books.rows(
        "select pg_get_userbyid(a.grantee)::text, t.attname::text, a.privilege_type "
        "from pg_class as c join pg_attribute as t on t.attrelid = c.oid "
        "cross join lateral aclexplode(t.attacl) as a "
        "where c.relnamespace = 'analytics'::regnamespace"
    )
    assert set(columns) == {(WORKER, "worker", "UPDATE"), (WORKER, "worked_at", "UPDATE")}


def test_grants_on_the_schema(books: Books) -> None:
    found = books.rows(
        "select pg_get_userbyid(a.grantee)::text, a.privilege_type from pg_namespace as n "
        "cross join lateral aclexplode(n.nspacl) as a "
        "where n.nspname = 'chatter' and a.grantee <> n.nspowner"
    )
    assert set(found) == {(APP, "USAGE"), (READER, "USAGE"), (WORKER, "USAGE")}


def test_nothing_is_granted_to_everybody_or_passed_on(books: Books) -> None:
    found = books.rows(
        "select o.name, a.privilege_type, a.grantee, a.is_grantable from ("
        "  select n.nspname::text as name, n.nspowner as owner, n.nspacl as acl "
        "  from pg_namespace as n where n.nspname = 'chatter' "
        "  union all select c.relname, c.relowner, c.relacl "
        "  from pg_class as c where c.relnamespace = 'chatter'::regnamespace "
        "  union all select t.attname, c.relowner, t.attacl "
        "  from pg_attribute as t join pg_class as c on c.oid = t.attrelid "
        "  where c.relnamespace = 'chatter'::regnamespace "
        "  union all select p.proname, p.proowner, "
        "    coalesce(p.proacl, acldefault('f', p.proowner)) "
        "  from pg_proc as p where p.pronamespace = 'chatter'::regnamespace"
        ") as o cross join lateral aclexplode(o.acl) as a "
        "where a.grantee <> o.owner"
    )
    assert len(found) > 100
    assert [row for row in found if row[2] == 0 or row[3]] == []


def test_the_rest_of_the_database_is_as_it_was(books: Books) -> None:
    defaults = books.rows("select defaclobjtype, defaclacl::text from pg_default_acl")
    types = books.rows(
        "select typname::text, typacl::text from pg_type "
        "where typnamespace in ('chatter'::regnamespace, 'analytics'::regnamespace) "
        "and typacl is not null"
    )
    database = books.rows("select datacl::text from pg_database where datname = current_database()")
    public = books.rows(
        "select a.privilege_type from pg_namespace as n "
        "cross join lateral aclexplode(n.nspacl) as a "
        "where n.nspname = 'public' and starts_with(a.grantee::regrole::text, 'chatter_')"
    )
    assert (defaults, types, database, public) == ([], [], [(None,)], [])


def test_the_roles_can_do_nothing_by_themselves(books: Books) -> None:
    found = books.rows(
        "select rolname::text, rolsuper or rolcreaterole or rolcreatedb or rolcanlogin "
        "or rolreplication or rolbypassrls from pg_roles where starts_with(rolname, 'chatter_') "
        "order by rolname"
    )
    assert found == [(APP, False), (READER, False), (WORKER, False)]


def test_granting_again_changes_nothing(books: Books) -> None:
    acls = (
        "select c.relname::text, c.relacl::text, array_agg(t.attacl::text order by t.attnum) "
        "from pg_class as c join pg_attribute as t on t.attrelid = c.oid "
        "where c.relnamespace = 'chatter'::regnamespace group by 1, 2 order by 1"
    )
    before = books.rows(acls)
    books.connection.execute("select chatter.grant_roles()")
    assert books.rows(acls) == before


# --- acting as the app


def keep_books(books: Books) -> None:
    """What an app does all day; the totals follow though it can't write them."""
    user = books.user(str(uuid4()), role="admin", metadata={"team": "support"})
    conversation = books.conversation(
        external_id=str(uuid4()), user_id=user, title="A title", metadata={}
    )
    run = books.execution(conversation, user_id=user, correlation_id="abc")
    message = books.message(
        conversation, execution_id=run, prompt_tokens=10, completion_tokens=5, content="hello"
    )
    other = books.conversation()
    books.messages({"conversation_id": parent, "cost": "0.1"} for parent in (conversation, other))
    call = books.tool_call(run, message_id=message)
    assert books.totals(conversation) == Totals(2, 10, 5, 15, Decimal("0.1"), unpriced_calls=1)
    assert books.run_totals(run) == RunTotals(1, 1, 10, 5, 15)

    books.change(message, prompt_tokens=20, cost=1, kind="step", metadata={"rating": 5})
    books.move(message, to=other)
    assert books.totals(conversation) == Totals(1, total_cost=Decimal("0.1"))
    assert books.totals(other) == Totals(1, 20, 5, 25, Decimal("1.1"))
    assert books.run_totals(run) == RunTotals(1, 1, 20, 5, 25, Decimal(1))

    books.change_tool_calls(call, status="completed", duration_ms=3.5)
    books.change_execution(run, status="completed")
    assert books.field("workflow_executions", run, "finished_at") is not None
    books.change_conversation(conversation, title="Another", status="archived", metadata={"a": 1})
    with books.connection.transaction():
        books.lock(conversation, other)
        books.message(other, role="user")
    assert books.erase(other) is True
    assert books.field("messages", message, "content") is None


def test_the_app_keeps_the_books(books: Books) -> None:
    with acting_as(books, APP):
        keep_books(books)
    assert books.findings() == {}


def each(statement: str, words: str) -> list[str]:
    """`statement` once for each of the words, which it names {}."""
    return [sql.SQL(statement).format(sql.Identifier(word)).as_string() for word in words.split()]


REFUSED_TO_THE_APP = [
    *each(
        "update chatter.conversations set {0} = {0}",
        "id user_id external_id created_at message_count prompt_tokens completion_tokens "
        "total_tokens total_cost unpriced_calls last_message_at",
    ),
    *each(
        "insert into chatter.conversations ({}) values (default)",
        "message_count prompt_tokens completion_tokens total_tokens total_cost unpriced_calls "
        "last_message_at",
    ),
    *each(
        "update chatter.workflow_executions set {0} = {0}",
        "id conversation_id user_id workflow_name started_at model_calls tool_calls "
        "prompt_tokens completion_tokens total_tokens total_cost",
    ),
    *each(
        "insert into chatter.workflow_executions (workflow_name, {}) values ('w', default)",
        "model_calls tool_calls prompt_tokens completion_tokens total_tokens total_cost",
    ),
    *each("update chatter.messages set {0} = {0}", "id created_at"),
    *each("update chatter.tool_calls set {0} = {0}", "id execution_id message_id tool_name"),
    *each("update chatter.users set {0} = {0}", "id external_id role created_at"),
    *(
        refused
        for statement in (
            "delete from chatter.{}",
            "truncate chatter.{} cascade",
            "alter table chatter.{} disable trigger all",
            "drop table chatter.{}",
            "create trigger t before insert on chatter.{} "
            "execute function chatter.tg_refuse_totals()",
        )
        for refused in each(
            statement, "users conversations workflow_executions messages tool_calls"
        )
    ),
    "select * from chatter.recount()",
    "select chatter.apply_message_deltas(array[]::chatter.message_delta[])",
    "select chatter.refuse_missing_parent('a', 'b', 'c')",
    "select chatter.grant_roles()",
    "insert into chatter.alembic_version values ('9999')",
    "update chatter.alembic_version set version_num = '9999'",
    "create table chatter.mine (id int)",
    "create function chatter.mine() returns int language sql as 'select 1'",
    "set session_replication_role = replica",
    "drop schema chatter cascade",
]

REFUSED_TO_THE_READER = [
    *each("select {} from chatter.users", "metadata"),
    *each("select {} from chatter.conversations", "title metadata"),
    *each("select {} from chatter.workflow_executions", "error_message metadata"),
    *each("select {} from chatter.messages", "content tool_calls error_message metadata"),
    *each("select {} from chatter.tool_calls", "error_message"),
    "select * from chatter.messages",
    "select m from chatter.messages as m",
    "copy chatter.messages to stdout",
    "insert into chatter.users (external_id) values ('x')",
    "insert into chatter.conversations default values",
    "update chatter.conversations set status = 'deleted'",
    "update chatter.messages set kind = 'step'",
    "delete from chatter.messages",
    "truncate chatter.messages cascade",
    "select chatter.lock_conversations(gen_random_uuid())",
    "select chatter.erase_conversation(gen_random_uuid())",
    "select * from chatter.recount()",
    "select chatter.grant_roles()",
    "select id from chatter.conversations for update",
]

REFUSED_TO_THE_WORKER = [
    "select id from chatter.messages",
    "select id from chatter.conversations",
    "insert into chatter.workflow_executions (workflow_name) values ('w')",
    "update chatter.workflow_executions set model_calls = 1",
    "update chatter.workflow_executions set metadata = '{}'",
    "delete from chatter.workflow_executions",
    "select chatter.erase_conversation(gen_random_uuid())",
    "select * from chatter.recount()",
]


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        *((APP, statement) for statement in REFUSED_TO_THE_APP),
        *((READER, statement) for statement in REFUSED_TO_THE_READER),
        *((WORKER, statement) for statement in REFUSED_TO_THE_WORKER),
    ],
)
def test_a_role_is_refused_what_it_was_not_granted(books: Books, role: str, statement: str) -> None:
    with acting_as(books, role), pytest.raises(errors.InsufficientPrivilege):
        books.connection.execute(statement)


def test_maintenance_opens_nothing_to_the_app(books: Books) -> None:
    conversation = books.conversation()
    with acting_as(books, APP):
        books.connection.execute("set chatter.maintenance = 'on'")
        with pytest.raises(errors.InsufficientPrivilege):
            books.change_conversation(conversation, message_count=5)
        books.connection.execute("reset chatter.maintenance")


def test_the_app_can_not_reach_a_total_by_a_trigger_of_its_own(books: Books) -> None:
    conversation = books.conversation()
    with books.connection.transaction(force_rollback=True):
        database = sql.Identifier(books.connection.info.dbname)
        books.connection.execute(
            sql.SQL("grant create on database {} to chatter_app").format(database)
        )
        books.connection.execute("set local role chatter_app")
        books.connection.execute("create schema mine")
        books.connection.execute("create table mine.bait (id uuid)")
        books.connection.execute(
            "create function mine.spring() returns trigger language plpgsql as "
            "'begin update chatter.conversations set total_cost = 0 where id = new.id; "
            "return new; end'"
        )
        books.connection.execute(
            "create trigger spring before insert on mine.bait "
            "for each row execute function mine.spring()"
        )
        with pytest.raises(errors.InsufficientPrivilege):
            books.connection.execute("insert into mine.bait values (%s)", [conversation])


# --- reader and worker


def test_the_reader_sees_every_figure(books: Books) -> None:
    conversation = books.conversation()
    run = books.execution(conversation)
    message = books.message(conversation, execution_id=run, prompt_tokens=7, content="secret")
    books.tool_call(run)
    with acting_as(books, READER):
        assert books.totals(conversation) == Totals(1, 7, 0, 7, unpriced_calls=1)
        assert books.run_totals(run) == RunTotals(1, 1, 7, 0, 7)
        assert books.field("messages", message, "prompt_tokens") == 7
        for table in ("users", "conversations", "workflow_executions", "messages", "tool_calls"):
            columns = COLUMNS[READER, "SELECT", table].split()
            books.connection.execute(
                sql.SQL("select {} from {}").format(
                    sql.SQL(", ").join(map(sql.Identifier, columns)),
                    sql.Identifier("chatter", table),
                )
            )


def test_the_checks_run_with_the_reader_s_rights(books: Books) -> None:
    books.message(books.conversation(), prompt_tokens=1)
    with acting_as(books, READER):
        assert books.findings() == {}


def test_the_worker_closes_a_run_whose_process_died(books: Books) -> None:
    run = books.execution()
    with acting_as(books, WORKER):
        books.change_execution(run, status="abandoned", error_type="Lost")
        assert books.field("workflow_executions", run, "finished_at") is not None


@pytest.mark.parametrize("role", [APP, READER, WORKER])
def test_every_role_may_ask_for_the_version(books: Books, role: str) -> None:
    with acting_as(books, role):
        assert books.value("select count(*) from chatter.alembic_version") == 1


def test_a_stranger_sees_nothing(books: Books) -> None:
    books.connection.execute("create role stranger")
    try:
        with acting_as(books, "stranger"), pytest.raises(errors.InsufficientPrivilege):
            books.connection.execute("select id from chatter.users")
    finally:
        books.connection.execute("drop role stranger")


# --- a login of the app's own


@pytest.fixture
def app_login(books: Books, shared_url: str) -> Iterator[Books]:
    """The books over a login with a name that needs quotes, which was granted chatter_app."""
    name = sql.Identifier("My App-Login")
    books.connection.execute(sql.SQL("create role {} login password 'secret'").format(name))
    books.connection.execute(sql.SQL("grant chatter_app to {}").format(name))
    try:
        with psycopg.connect(
            shared_url, user="My App-Login", password="secret", autocommit=True
        ) as connection:
            yield Books(connection)
    finally:
        books.connection.execute(sql.SQL("drop role {}").format(name))


def test_a_login_that_was_granted_the_role_keeps_the_books(app_login: Books) -> None:
    keep_books(app_login)
    for statement in (
        "update chatter.conversations set total_cost = 0",
        "delete from chatter.messages",
        "select * from chatter.recount()",
        "set session_replication_role = replica",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            app_login.connection.execute(statement)


def test_a_login_may_freeze_its_own_clock_only(app_login: Books, books: Books) -> None:
    app_login.connection.execute("set chatter.frozen_clock = '2001-02-03 00:00:00+00'")
    now: Any = books.value("select chatter.clock()")
    assert now.year > 2001


@pytest.mark.parametrize("type_", ["uuid", "text", "inet", "timestamptz", "jsonb"])
def test_what_runs_as_the_owner_takes_no_type_of_the_caller(app_login: Books, type_: str) -> None:
    user = uuid4()
    names = {"own": sql.Identifier(type_), "user": sql.Literal(str(user))}
    reaching = (
        "insert into chatter.security_events (event_type, user_id, ip_address) "
        "values ('login_failure', {user}, '192.0.2.1')",
        "select chatter.blocked_until('192.0.2.1', {user})",
        "select chatter.owns_conversation({user})",
        "select count(*) from chatter.events_after(null, 1)",
        "insert into chatter.messages (conversation_id, role, prompt_tokens) "
        "select id, 'user', 1 from chatter.conversations where user_id = {user}",
    )
    with app_login.connection.transaction(force_rollback=True):
        for setup in (
            "insert into chatter.users (id, external_id) values ({user}, {user}::text)",
            "insert into chatter.conversations (user_id) values ({user})",
            "create function pg_temp.seen() returns boolean language plpgsql as $$ begin "
            "if current_user <> session_user then raise 'ran as %', current_user; end if; "
            "return true; end $$",
            "create domain pg_temp.{own} as pg_catalog.{own} check (pg_temp.seen())",
            "select pg_catalog.set_config('chatter.user_id', {user}, true)",
        ):
            app_login.connection.execute(sql.SQL(setup).format(**names))
        for statement in reaching:
            app_login.connection.execute(sql.SQL(statement).format(**names))
