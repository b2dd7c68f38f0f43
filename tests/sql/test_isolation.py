"""400_isolation.sql: a transaction that acts for a user meets nothing of another's."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors, sql

from .books import Books

# Those that say themselves whose a row is.
TABLES = (
    "conversations",
    "workflow_executions",
    "events",
    "security_events",
    "passwords",
    "api_keys",
    "browser_sessions",
)


class Tenant:
    """A user with a row in every table that belongs to users."""

    def __init__(self, books: Books) -> None:
        self.user = books.user(str(uuid4()))
        self.conversation = books.conversation(user_id=self.user)
        self.run = books.execution(self.conversation, user_id=self.user)
        self.message = books.message(
            self.conversation, execution_id=self.run, prompt_tokens=7, cost=1
        )
        self.tool_call = books.tool_call(self.run, message_id=self.message)
        for statement in (
            "insert into chatter.security_events (event_type, severity, user_id) "
            "values ('login_success', 'low', %s)",
            "insert into chatter.passwords (user_id, hash) values (%s, '$argon2id$x')",
            "insert into chatter.api_keys (user_id, name, prefix, hash) "
            "values (%s, 'k', 'p', sha256(uuid_send(gen_random_uuid())))",
            "insert into chatter.browser_sessions (user_id, hash, expires_at) "
            "values (%s, sha256(uuid_send(gen_random_uuid())), now() + interval '1 day')",
            "insert into chatter.alerts (rule_name, subject, subject_value, severity, events, "
            "blocked_until) select name, 'user_id', %s, severity, 9, now() + interval '1 day' "
            "from chatter.security_rules limit 1",
            "insert into chatter.recorders (id, host, process_id) values (%s, 'host', 1)",
        ):
            books.connection.execute(statement, [self.user])
        self.key = books.value("select id from chatter.api_keys where user_id = %s", self.user)


@pytest.fixture
def ada(books: Books) -> Tenant:
    return Tenant(books)


@pytest.fixture
def bob(books: Books) -> Tenant:
    return Tenant(books)


@contextmanager
def acting_for(books: Books, user: UUID) -> Iterator[None]:
    with books.connection.transaction():
        books.connection.execute("select chatter.act_for(%s)", [user])
        yield


def count(books: Books, table: str) -> int:
    found = books.value(
        sql.SQL("select count(*) from {}").format(sql.Identifier("chatter", table)).as_string()
    )
    assert isinstance(found, int)
    return found


def owners(books: Books) -> dict[str, set[UUID]]:
    """Whose rows each table shows, without any condition."""
    return {
        "users": {row[0] for row in books.rows("select id from chatter.users")},
        **{
            table: {
                row[0]
                for row in books.rows(
                    sql.SQL("select user_id from {}")
                    .format(sql.Identifier("chatter", table))
                    .as_string()
                )
            }
            for table in TABLES
        },
    }


def test_statements_without_a_condition_meet_one_s_own_rows(
    books: Books, ada: Tenant, bob: Tenant
) -> None:
    # Of a run in one's conversation that is another's by itself, its calls are, too.
    theirs = books.execution(ada.conversation, user_id=bob.user)
    books.tool_call(theirs)
    assert count(books, "alerts") and count(books, "recorders")
    with acting_for(books, ada.user):
        assert owners(books) == {key: {ada.user} for key in ("users", *TABLES)}
        assert books.rows("select id from chatter.messages") == [(ada.message,)]
        assert books.rows("select id from chatter.tool_calls") == [(ada.tool_call,)]
        assert (count(books, "alerts"), count(books, "recorders")) == (0, 0)
        changed = books.connection.execute("update chatter.messages set cost = 2").rowcount
        assert changed == 1
    assert books.value("select cost from chatter.messages where id = %s", bob.message) == 1
    assert books.findings() == {}


def test_events_and_usage_are_one_s_own(books: Books, ada: Tenant, bob: Tenant) -> None:
    after = "select distinct user_id from chatter.events_after(null, 10000)"
    both = {row[0] for row in books.rows(after)}
    assert both >= {ada.user, bob.user}
    with acting_for(books, ada.user):
        assert books.rows(after) == [(ada.user,)]
        other = "select count(*) from chatter.events_after(null, 10000, %s)"
        assert books.value(other, bob.user) == 0
        usage = "select distinct user_id from analytics.usage_user_day_live"
        assert books.rows(usage) == [(ada.user,)]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into chatter.conversations (user_id) values (%(user)s)",
        "insert into chatter.conversations default values",
        "insert into chatter.messages (conversation_id, role) values (%(conversation)s, 'user')",
        "insert into chatter.messages (conversation_id, execution_id, role) "
        "values (%(mine)s, %(run)s, 'user')",
        "update chatter.messages set conversation_id = %(conversation)s",
        "update chatter.messages set execution_id = %(run)s",
        "insert into chatter.workflow_executions (conversation_id, workflow_name) "
        "values (%(conversation)s, 'w')",
        "insert into chatter.workflow_executions (user_id, workflow_name) values (%(user)s, 'w')",
        "insert into chatter.workflow_executions (workflow_name) values ('w')",
        "insert into chatter.tool_calls (execution_id, tool_name) values (%(run)s, 't')",
        "insert into chatter.security_events (event_type, severity, user_id) "
        "values ('login_success', 'low', %(user)s)",
        "insert into chatter.api_keys (user_id, name, prefix, hash) "
        "values (%(user)s, 'k', 'p', sha256('x'))",
        "insert into chatter.browser_sessions (user_id, hash, expires_at) "
        "values (%(user)s, sha256('x'), now() + interval '1 day')",
        "insert into chatter.browser_sessions (user_id, hash, expires_at, api_key_id) "
        "values (%(me)s, sha256('x'), now() + interval '1 day', %(key)s)",
        "insert into chatter.users (external_id) values ('another')",
        "select * from analytics.usage_hourly",
        "select * from analytics.usage_by_user",
    ],
)
def test_what_is_another_s_is_refused(
    books: Books, ada: Tenant, bob: Tenant, statement: str
) -> None:
    values = {
        "user": bob.user,
        "conversation": bob.conversation,
        "run": bob.run,
        "key": bob.key,
        "me": ada.user,
        "mine": ada.conversation,
    }
    with pytest.raises(errors.InsufficientPrivilege), acting_for(books, ada.user):
        books.connection.execute(statement, values)
    assert books.findings() == {}


def test_copy_is_left_to_who_no_policy_binds(books: Books, ada: Tenant) -> None:
    """Postgres's own limit: https://www.postgresql.org/docs/current/sql-copy.html."""
    statement = "copy chatter.messages (conversation_id, role) from stdin"
    with books.connection.transaction(), books.connection.cursor() as cursor:
        cursor.execute("set local role chatter_app")
        with pytest.raises(errors.FeatureNotSupported, match="row-level security"):  # noqa: SIM117
            with books.connection.transaction(), cursor.copy(statement):
                pass
    with books.connection.cursor().copy(statement) as copy:
        copy.write_row((ada.conversation, "user"))
    assert books.findings() == {}


def test_it_ends_with_the_transaction(books: Books, ada: Tenant, bob: Tenant) -> None:
    before = books.row("select current_user::text, session_user::text")
    with acting_for(books, ada.user):
        assert books.value("select current_user::text") == "chatter_app"
    assert books.row("select current_user::text, session_user::text") == before
    assert count(books, "users") >= 2
    with books.connection.transaction():
        books.connection.execute("set local role chatter_app")
        assert count(books, "users") >= 2


def test_a_login_can_begin_at_nobody(
    books: Books, shared_url: str, ada: Tenant, bob: Tenant
) -> None:
    run = books.connection.execute
    run("create role careful login password 'secret'")
    try:
        run("grant chatter_app to careful")
        run("alter role careful set chatter.user_id = '00000000-0000-0000-0000-000000000000'")
        with psycopg.connect(
            shared_url, user="careful", password="secret", autocommit=True
        ) as connection:
            careful = Books(connection)
            nobody: dict[str, set[UUID]] = {key: set() for key in ("users", *TABLES)}
            assert owners(careful) == nobody
            with pytest.raises(errors.InsufficientPrivilege):
                careful.conversation(user_id=ada.user)
            with acting_for(careful, ada.user):
                assert careful.rows("select id from chatter.messages") == [(ada.message,)]
            # And back: not to the app as a whole.
            assert owners(careful) == nobody
    finally:
        run("drop role careful")


def test_one_s_own_conversation_can_be_kept_and_erased(books: Books, ada: Tenant) -> None:
    with acting_for(books, ada.user):
        made = books.conversation(user_id=ada.user)
        run = books.execution(made)
        books.tool_call(run, message_id=books.message(made, execution_id=run, prompt_tokens=3))
        books.tool_call(run)
        assert books.totals(made).prompt_tokens == 3
        assert books.erase(made) is True
    assert books.findings() == {}


def test_another_s_conversation_can_not_be_erased(books: Books, ada: Tenant, bob: Tenant) -> None:
    with acting_for(books, ada.user):
        assert books.erase(bob.conversation) is False


@pytest.mark.parametrize(
    ("user", "error"),
    [(None, errors.NullValueNotAllowed), ("ada", errors.InvalidTextRepresentation)],
)
def test_acting_for_nobody_in_particular_is_refused(
    books: Books, user: str | None, error: type[psycopg.Error]
) -> None:
    with pytest.raises(error):
        books.connection.execute("select chatter.act_for(%s::uuid)", [user])


def test_every_table_of_the_app_has_row_level_security(books: Books) -> None:
    """But for what is the same for everybody."""
    found = books.rows(
        "select c.relname::text from pg_class as c, aclexplode(c.relacl) as a "
        "where c.relnamespace = 'chatter'::regnamespace and c.relkind = 'r' "
        "and not c.relrowsecurity and a.grantee = 'chatter_app'::regrole "
        "and a.privilege_type = 'SELECT' order by 1"
    )
    assert found == [("alembic_version",), ("prices",)]
