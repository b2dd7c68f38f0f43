"""Two tenants, random statements: what is another's can't be told from what isn't there.

Every statement runs twice from the same state, for one tenant: with ids of the other, and with
ids that nobody has. Rows, counts and errors must be the same, and the other's rows as they were.
"""

import random
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from .books import Books
from .test_isolation import Tenant, acting_for

STATEMENTS = 150
SEEDS = range(4)

# Named are ids: %(user)s and so on are anybody's, %(own_…)s are the tenant's.
READS: tuple[LiteralString, ...] = (
    "select id from chatter.users where id = %(user)s or external_id = %(name)s",
    "select count(*), min(total_cost) from chatter.conversations where id = %(conversation)s",
    "select count(*) from chatter.conversations where user_id is distinct from %(own_user)s",
    "select id, total_tokens from chatter.workflow_executions "
    "where id = %(run)s or conversation_id = %(conversation)s or user_id = %(user)s",
    "select id, prompt_tokens, content from chatter.messages "
    "where id = %(message)s or conversation_id = %(conversation)s or execution_id = %(run)s",
    "select sum(cost) from chatter.messages where conversation_id <> %(own_conversation)s",
    "select id from chatter.tool_calls where id = %(tool_call)s or execution_id = %(run)s",
    "select event_type, subject_id from chatter.events where user_id = %(user)s "
    "or conversation_id = %(conversation)s or execution_id = %(run)s or subject_id = %(message)s",
    "select event_type, payload from chatter.events_after(null, 1000, %(user)s)",
    "select event_type from chatter.events_after(null, 1000, null, %(conversation)s)",
    "select event_type from chatter.events_after(null, 1000, null, null, %(run)s)",
    "select messages, cost from analytics.usage_user_day_live where user_id = %(user)s",
    "select count(*) from analytics.usage_user_day_live where user_id <> %(own_user)s",
    "select chatter.blocked_until('203.0.113.9', %(user)s)",
    "select event_type from chatter.security_events where user_id = %(user)s",
    "select name from chatter.api_keys where user_id = %(user)s",
    "select 1 from chatter.browser_sessions where user_id = %(user)s",
    "select count(*) from chatter.alerts",
    "select count(*) from chatter.recorders",
    "select chatter.lock_conversations(%(conversation)s, %(own_conversation)s)",
    "select chatter.erase_conversation(%(conversation)s)",
    "select id from chatter.messages where id = %(message)s for update",
    "select * from chatter.conversations where id = %(conversation)s for key share",
    # Not the app's at all.
    "select * from analytics.usage_by_user where user_id = %(user)s",
    "select * from analytics.deltas",
    "select * from chatter.recount()",
    "select chatter.event_payload(e) from chatter.events as e where user_id = %(user)s",
)
WRITES: tuple[LiteralString, ...] = (
    "insert into chatter.conversations (user_id) values (%(user)s)",
    "insert into chatter.conversations (user_id, external_id) values (%(user)s, 'c') "
    "on conflict do nothing",
    "insert into chatter.workflow_executions (conversation_id, user_id, workflow_name) "
    "values (%(conversation)s, %(own_user)s, 'w')",
    "insert into chatter.workflow_executions (user_id, workflow_name) values (%(user)s, 'w')",
    "insert into chatter.messages (conversation_id, role, cost) "
    "values (%(conversation)s, 'user', 1)",
    "insert into chatter.messages (conversation_id, execution_id, role) "
    "values (%(own_conversation)s, %(run)s, 'user')",
    "insert into chatter.messages (conversation_id, role, prompt_tokens) "
    "values (%(own_conversation)s, 'assistant', 5)",
    "insert into chatter.tool_calls (execution_id, tool_name) values (%(run)s, 't')",
    "insert into chatter.tool_calls (execution_id, message_id, tool_name) "
    "values (%(own_run)s, %(message)s, 't')",
    "update chatter.messages set cost = 3 where id = %(message)s",
    "update chatter.messages set conversation_id = %(conversation)s where id = %(own_message)s",
    "update chatter.messages set execution_id = %(run)s where id = %(own_message)s",
    "update chatter.messages set prompt_tokens = 9 where conversation_id = %(conversation)s",
    "update chatter.conversations set title = 'mine' where id = %(conversation)s",
    "update chatter.workflow_executions set status = 'failed' where id = %(run)s",
    "update chatter.tool_calls set status = 'failed' where execution_id = %(run)s",
    "update chatter.users set metadata = '{}' where id = %(user)s",
    "update chatter.api_keys set revoked_at = now() where user_id = %(user)s",
    "delete from chatter.messages where id = %(message)s",
    "insert into chatter.security_events (event_type, severity, user_id) "
    "values ('login_failure', 'low', %(user)s)",
    "insert into chatter.browser_sessions (user_id, hash, expires_at, api_key_id) "
    "values (%(own_user)s, sha256(uuid_send(gen_random_uuid())), now(), %(key)s)",
    "insert into chatter.passwords (user_id, hash) values (%(user)s, '$argon2id$x') "
    "on conflict do nothing",
    "merge into chatter.messages as m using (select %(message)s::uuid as id) as s on m.id = s.id "
    "when matched then update set cost = 4",
    "with changed as (update chatter.messages set content = 'x' where id = %(message)s "
    "returning id) select count(*) from changed",
)


@dataclass(frozen=True)
class Outcome:
    """What a tenant learns of a statement."""

    rows: list[Any]
    count: int
    error: str


class _PutBack(Exception):
    """Ends the transaction without a trace."""


@pytest.mark.parametrize("seed", SEEDS)
def test_another_s_is_as_good_as_not_there(books: Books, seed: int) -> None:
    chance = random.Random(seed)
    tenants = [Tenant(books), Tenant(books)]
    for _ in range(STATEMENTS):
        me, other = chance.sample(tenants, 2)
        statement = chance.choice(READS + WRITES)
        before = belongings(books, other)

        theirs = attempt(books, me, statement, ids(other))
        nobodys = attempt(books, me, statement, dict.fromkeys(ids(other), None))
        assert theirs == nobodys, statement
        assert belongings(books, other) == before, statement

        # And with one's own ids it happens, so that there is something to find.
        run(books, me, statement, ids(me))
        assert belongings(books, other) == before, statement


def ids(tenant: Tenant) -> dict[str, UUID]:
    return {
        "user": tenant.user,
        "conversation": tenant.conversation,
        "run": tenant.run,
        "message": tenant.message,
        "tool_call": tenant.tool_call,
        "key": tenant.key,
    }


def attempt(books: Books, me: Tenant, statement: LiteralString, values: dict[str, Any]) -> Outcome:
    """What comes of it, ids blanked out; nothing stays."""
    learnt = Outcome([], -1, "")
    given = {name: value or uuid4() for name, value in values.items()}
    try:
        with acting_for(books, me.user):
            learnt = _execute(books, me, statement, given)
            raise _PutBack
    except _PutBack:
        pass
    except psycopg.Error as error:
        said = f"{error.sqlstate} {error.diag.message_primary} {error.diag.message_detail}"
        for value in given.values():
            said = said.replace(str(value), "an id")
        learnt = Outcome([], -1, said)
    return learnt


def run(books: Books, me: Tenant, statement: LiteralString, values: dict[str, Any]) -> None:
    try:
        with acting_for(books, me.user):
            _execute(books, me, statement, values)
    except psycopg.errors.InsufficientPrivilege:
        pass  # what is not the app's at all


def _execute(books: Books, me: Tenant, statement: LiteralString, values: dict[str, Any]) -> Outcome:
    own = {f"own_{name}": value for name, value in ids(me).items()}
    found = books.connection.execute(statement, {**own, **values, "name": "nobody"})
    rows = found.fetchall() if found.description else []
    return Outcome(rows, found.rowcount, "")


def belongings(books: Books, tenant: Tenant) -> list[Any]:
    """All that is a tenant's, totals too, as the owner of the schema sees it."""
    found = books.connection.execute(
        """
        select c::text from chatter.conversations as c where user_id = %(user)s
        union all
        select e::text from chatter.workflow_executions as e where user_id = %(user)s
        union all
        select m::text from chatter.messages as m
          join chatter.conversations as c on c.id = m.conversation_id
          where c.user_id = %(user)s
        union all
        select t::text from chatter.tool_calls as t
          join chatter.workflow_executions as e on e.id = t.execution_id
          where e.user_id = %(user)s
        union all
        select e::text from chatter.events as e where user_id = %(user)s
        union all
        select s::text from chatter.security_events as s where user_id = %(user)s
        union all
        select k::text from chatter.api_keys as k where user_id = %(user)s
        union all
        select u::text from chatter.users as u where id = %(user)s
        order by 1
        """,
        {"user": tenant.user},
    )
    return found.fetchall()
