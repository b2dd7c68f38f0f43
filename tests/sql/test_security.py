"""250_security.sql: what is counted, when an alert is raised, and what can't be changed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from .books import Books

ADDRESS, OTHER = "203.0.113.7", "2001:db8::1"


@pytest.fixture
def books(db: psycopg.Connection[tuple[object, ...]]) -> Books:
    """A database of each test's own: these records can't be taken back."""
    return Books(db)


def failures(books: Books, number: int = 1, **columns: Any) -> None:
    """Security events, by default failed logins from ADDRESS."""
    row = {"event_type": "login_failure", "ip_address": ADDRESS, "user_id": None, **columns}
    for _ in range(number):
        books.connection.execute(
            "insert into chatter.security_events (event_type, ip_address, user_id, details) "
            "values (%s, %s, %s, %s)",
            [row["event_type"], row["ip_address"], row["user_id"], Jsonb(row.get("details", {}))],
        )


def alerts(books: Books) -> list[tuple[Any, ...]]:
    return books.rows(
        "select rule_name, subject_value, events from chatter.alerts order by created_at"
    )


def at(books: Books, time: str) -> None:
    books.connection.execute("select set_config('chatter.frozen_clock', %s, false)", [time])


def test_the_threshold_raises_one_alert(books: Books) -> None:
    failures(books, 9)
    assert alerts(books) == []
    failures(books)
    assert alerts(books) == [("failed_logins_per_address", ADDRESS, 10)]
    failures(books, 25)
    assert len(alerts(books)) == 1


def test_one_statement_may_pass_the_threshold(books: Books) -> None:
    books.connection.execute(
        "insert into chatter.security_events (event_type, ip_address, correlation_id) "
        "select 'login_failure', %s, 'request' from generate_series(1, 30)",
        [ADDRESS],
    )
    assert alerts(books) == [("failed_logins_per_address", ADDRESS, 30)]
    assert books.value("select correlation_id from chatter.alerts") == "request"


def test_the_period_ends_now_and_not_on_a_clock(books: Books) -> None:
    at(books, "2026-05-04 12:14:59+00")
    failures(books, 5)
    at(books, "2026-05-04 12:15:01+00")
    failures(books, 5)
    assert len(alerts(books)) == 1


def test_old_events_do_not_count(books: Books) -> None:
    at(books, "2026-05-04 12:00:00+00")
    failures(books, 9)
    used: dict[str, Any] = {"event_type": "api_key_used", "details": {"api_key_id": "key"}}
    failures(books, 99, **used)
    at(books, "2026-05-04 12:15:00+00")
    failures(books, 9)
    at(books, "2026-05-04 13:00:00+00")
    failures(books, 99, **used)
    assert alerts(books) == []


def test_the_next_period_has_an_alert_of_its_own(books: Books) -> None:
    at(books, "2026-05-04 12:00:00+00")
    failures(books, 12)
    at(books, "2026-05-04 12:14:00+00")
    failures(books, 12)
    assert len(alerts(books)) == 1
    at(books, "2026-05-04 12:16:00+00")
    failures(books)
    assert [events for _, _, events in alerts(books)] == [10, 13]


def test_refusals_that_one_server_notes_can_raise_the_alert(books: Books) -> None:
    """Once a minute, by the threshold and period that the rule comes with."""
    for minute in range(10):
        assert alerts(books) == []
        at(books, f"2026-05-04 12:{minute:02}:00+00")
        failures(books, event_type="rate_limit_exceeded")
    assert [rule for rule, *_ in alerts(books)] == ["rate_limits_per_address"]


def test_addresses_users_and_keys_are_counted_apart(books: Books) -> None:
    ada, bob = books.user("ada"), books.user("bob")
    key: dict[str, Any] = {"details": {"api_key_id": "key"}}
    # No rule counts these, nor do they count with what a rule counts.
    failures(books, 10, event_type="login_success", user_id=bob, **key)
    for number in range(5):
        failures(books, ip_address=f"198.51.100.{number}", user_id=ada)
    failures(books, 4, ip_address=OTHER, user_id=bob)
    failures(books, 9)
    assert alerts(books) == [("failed_logins_per_user", str(ada), 5)]
    failures(books, 99, event_type="api_key_used", **key)
    assert len(alerts(books)) == 1
    failures(books, event_type="api_key_used", **key)
    # One alert stands for those of its own rule.
    failures(books, 5, event_type="password_reset_requested", ip_address=None, user_id=ada)
    assert alerts(books)[1:] == [
        ("uses_per_api_key", "key", 100),
        ("password_resets_per_user", str(ada), 5),
    ]


def test_a_rule_can_be_changed_and_switched_off(books: Books) -> None:
    books.connection.execute(
        "update chatter.security_rules set threshold = 2 where name = 'failed_logins_per_address'"
    )
    failures(books, 2)
    assert len(alerts(books)) == 1
    books.connection.execute("update chatter.security_rules set enabled = false")
    failures(books, 50, ip_address=OTHER)
    assert len(alerts(books)) == 1


def test_a_block_begins_with_the_alert_and_ends_by_itself(books: Books) -> None:
    ada = books.user("ada")

    def blocked(address: str | None, user: UUID | None) -> Any:
        return books.value("select chatter.blocked_until(%s, %s)", address, user)

    at(books, "2026-05-04 12:00:00+00")
    failures(books, 4, user_id=ada)
    assert blocked(ADDRESS, ada) is None
    failures(books, user_id=ada)
    assert str(blocked(OTHER, ada)) == "2026-05-04 12:15:00+00:00"
    assert blocked(ADDRESS, None) is None
    at(books, "2026-05-04 12:01:00+00")
    failures(books, 5)
    assert str(blocked(ADDRESS, ada)) == "2026-05-04 12:16:00+00:00"
    assert blocked(None, None) is None
    at(books, "2026-05-04 12:15:00+00")
    assert blocked(OTHER, ada) is None and blocked(ADDRESS, ada) is not None
    at(books, "2026-05-04 12:16:00+00")
    assert blocked(ADDRESS, ada) is None


def test_addresses_of_a_network_of_ipv6_count_as_one(books: Books) -> None:
    def blocked(address: str) -> Any:
        return books.value("select chatter.blocked_until(%s, null) is not null", address)

    for number in range(5):
        failures(books, ip_address=f"2001:db8:0:1::{number:x}")
        failures(books, ip_address=f"2001:db8:0:1:ffff:ffff:ffff:fff{number:x}")
        failures(books, ip_address=f"2001:db8:0:2::{number:x}")
        failures(books, ip_address=f"2001:db8:0:0:ffff:ffff:ffff:fff{number:x}")
    assert alerts(books) == [("failed_logins_per_address", "2001:db8:0:1::/64", 10)]
    assert blocked("2001:db8:0:1:abcd::") and not blocked("2001:db8:0:2::1")
    failures(books, event_type="block_lifted", ip_address="2001:db8:0:2::1")
    assert blocked("2001:db8:0:1::1")
    failures(books, event_type="block_lifted", ip_address="2001:db8:0:1:5::")
    assert not blocked("2001:db8:0:1::1")


@pytest.mark.parametrize("network", ["198.51.100.", "::ffff:198.51.100."])
def test_addresses_of_ipv4_count_each_for_itself(books: Books, network: str) -> None:
    for number in range(30):
        failures(books, ip_address=f"{network}{number}")
    assert alerts(books) == []
    failures(books, 9, ip_address=f"{network}7")
    assert alerts(books) == [("failed_logins_per_address", f"{network}7", 10)]
    assert not books.value("select chatter.blocked_until(%s, null) is not null", f"{network}8")


def test_many_connections_raise_one_alert(books: Books, url: str) -> None:
    ada = books.user("ada")

    def fail(_: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            failures(Books(connection), 5, user_id=ada)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fail, range(8)))
    assert sorted(name for name, _, _ in alerts(books)) == [
        "failed_logins_per_address",
        "failed_logins_per_user",
    ]
    assert books.value("select count(*) from chatter.security_events") == 40


@pytest.mark.long
def test_failures_of_one_address_alone_take_turns(books: Books, url: str) -> None:
    with psycopg.connect(url) as first, psycopg.connect(url, autocommit=True) as second:
        failures(Books(first))
        # Whoever may connect could have that, and nobody would be told of a wrong password.
        assert books.value("select count(*) from pg_locks where locktype = 'advisory'") == 0
        second.execute("set statement_timeout = '2s'")
        failures(Books(second), ip_address=OTHER)
        with pytest.raises(errors.QueryCanceled):
            failures(Books(second))
        first.rollback()
        failures(Books(second))
    assert books.value("select count(*) from chatter.security_events") == 2


@pytest.mark.parametrize("table", ["security_events", "alerts"])
@pytest.mark.parametrize(
    "statement",
    [
        "update chatter.{} set severity = 'low'",
        "delete from chatter.{}",
        "truncate chatter.{}",
    ],
)
def test_the_record_is_append_only(books: Books, table: str, statement: str) -> None:
    failures(books, 10)
    if not statement.startswith("delete"):
        # That is for retention, which deletes.
        books.connection.execute("set chatter.maintenance = on")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="append-only") as refused:
        books.connection.execute(statement.format(table).encode())
    assert refused.value.diag.message_hint is not None
    assert books.value("select count(*) from chatter.security_events") == 10
    assert len(alerts(books)) == 1


@pytest.mark.parametrize("subject", ["ip_address", "user_id"])
def test_a_lifted_block_holds_no_more_and_what_led_to_it_counts_no_more(
    books: Books, subject: str
) -> None:
    ada, bob = books.user("ada"), books.user("bob")
    blocked: dict[str, Any] = {"ip_address": ADDRESS}
    other: dict[str, Any] = {"ip_address": OTHER}
    if subject == "user_id":
        blocked = {"ip_address": None, "user_id": ada}
        other = {"ip_address": None, "user_id": bob}
    at(books, "2026-05-01 12:00:00+00")

    def is_blocked(who: dict[str, Any]) -> bool:
        return bool(
            books.value(
                "select chatter.blocked_until(%s, %s) is not null",
                who["ip_address"],
                who.get("user_id"),
            )
        )

    failures(books, 10, **blocked)
    failures(books, 10, **other)
    assert is_blocked(blocked) and is_blocked(other)
    at(books, "2026-05-01 12:01:00+00")
    failures(books, event_type="block_lifted", **blocked)
    assert not is_blocked(blocked) and is_blocked(other)
    at(books, "2026-05-01 12:02:00+00")
    failures(books, 4, **blocked)
    assert not is_blocked(blocked)
    failures(books, 6, **blocked)
    assert is_blocked(blocked)
    at(books, "2026-05-01 12:03:00+00")
    failures(books, event_type="block_lifted", **blocked)
    assert not is_blocked(blocked)


def test_pruning_leaves_what_counts(books: Books) -> None:
    at(books, "2026-05-01 12:00:00+00")
    failures(books, 10)
    # With an alert that blocks nobody.
    failures(books, 5, event_type="password_reset_requested", user_id=books.user("ada"))
    at(books, "2026-05-04 12:00:00+00")
    failures(books, 3)
    with books.connection.transaction():
        assert books.value("select chatter.prune_security('2026-05-02')") == 17
        assert alerts(books) == []
        assert books.value("select count(*) from chatter.security_events") == 3
        # The way around is shut again.
        with (
            pytest.raises(errors.ObjectNotInPrerequisiteState),
            books.connection.transaction(),
        ):
            books.connection.execute("delete from chatter.security_events")


def test_pruning_takes_sessions_that_were_over(books: Books) -> None:
    user = books.user("ada")
    for name, expires, revoked in (
        ("over", "2026-05-01", None),
        ("signed out", "2026-06-01", "2026-05-01"),
        ("over since", "2026-05-03", None),
        ("good", "2026-06-01", None),
    ):
        books.connection.execute(
            "insert into chatter.browser_sessions"
            " (user_id, hash, expires_at, revoked_at, user_agent)"
            " values (%s, sha256(%s::bytea), %s, %s, %s)",
            [user, name, expires, revoked, name],
        )
    at(books, "2026-05-04 12:00:00+00")
    assert books.value("select chatter.prune_security('2026-05-02')") == 2
    left = books.rows("select user_agent from chatter.browser_sessions order by 1")
    assert left == [("good",), ("over since",)]


def test_pruning_keeps_a_block_that_holds(books: Books) -> None:
    books.connection.execute(
        "update chatter.security_rules set block_for = '30 days' where subject = 'ip_address'"
    )
    at(books, "2026-05-01 12:00:00+00")
    failures(books, 10)
    at(books, "2026-05-10 12:00:00+00")
    assert books.value("select chatter.prune_security('2026-05-08')") == 10
    assert books.value("select chatter.blocked_until(%s, null) is not null", ADDRESS)


@pytest.mark.parametrize("before", [None, "now", "infinity"])
def test_pruning_refuses_the_last_day(books: Books, before: str | None) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="keeps at least the last day"):
        books.value("select chatter.prune_security(%s)", before)


def test_pruning_goes_by_no_clock_that_is_put_forward(books: Books) -> None:
    at(books, "2026-05-01 12:00:00+00")
    books.connection.execute(
        "update chatter.security_rules set block_for = '900 years' where subject = 'ip_address'"
    )
    failures(books, 10)
    books.connection.execute("set role chatter_worker")
    at(books, "2999-12-31")
    assert books.value("select chatter.prune_security('2026-05-08')") == 10
    for function in ("prune_security", "prune_events"):
        with pytest.raises(errors.InvalidParameterValue):
            books.value(f"select chatter.{function}('2999-12-01')")
    books.connection.execute("reset role")
    assert len(alerts(books)) == 1


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"event_type": "Login Failure"}, "security_events_event_type_check"),
        ({"event_type": "x" * 64}, "security_events_event_type_check"),
        ({"details": []}, "security_events_details_check"),
    ],
)
def test_what_is_no_event(books: Books, columns: dict[str, Any], constraint: str) -> None:
    with pytest.raises(errors.CheckViolation) as refused:
        failures(books, **columns)
    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("table", "column", "longest", "wrong"),
    [
        ("security_events", "severity", "critical", "severe"),
        ("security_events", "user_agent", "x" * 1000, "x" * 1001),
        ("security_events", "correlation_id", "x" * 500, "x" * 501),
        ("security_events", "correlation_id", "x", ""),
        ("alerts", "subject", "api_key_id", "email"),
        ("alerts", "severity", "critical", "severe"),
        ("api_keys", "name", "x" * 200, "x" * 201),
        ("api_keys", "name", "x", ""),
        ("api_keys", "prefix", "x" * 16, "x" * 17),
        ("api_keys", "prefix", "x", ""),
        ("browser_sessions", "user_agent", "x" * 1000, "x" * 1001),
        ("events", "category", "security", "door"),
    ],
)
def test_what_no_row_about_the_door_says(
    books: Books, table: str, column: str, longest: str, wrong: str
) -> None:
    user = books.user("ada")
    rows: dict[str, dict[str, Any]] = {
        "security_events": {"event_type": "login_failure"},
        "alerts": {
            **{"rule_name": "failed_logins_per_user", "subject": "user_id", "subject_value": "x"},
            **{"severity": "low", "events": 5},
        },
        "api_keys": {"user_id": user, "name": "laptop", "prefix": "chatter_", "hash": b"x" * 32},
        "browser_sessions": {"user_id": user, "hash": b"x" * 32, "expires_at": "2030-01-01"},
        "events": {"event_type": "login_failure"},
    }

    def write(value: str) -> None:
        row = {**rows[table], column: value}
        statement = sql.SQL("insert into chatter.{} ({}) values ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        )
        books.connection.execute(statement, row)

    write(longest)
    with pytest.raises(errors.CheckViolation, match=f"{table}_{column}_check"):
        write(wrong)


def test_a_key_is_not_blocked(books: Books) -> None:
    with pytest.raises(errors.CheckViolation):
        books.connection.execute("update chatter.security_rules set block_for = '1 hour'")


def test_the_app_keeps_the_door_and_raises_no_alert(books: Books) -> None:
    books.connection.execute("set role chatter_app")
    failures(books, 10)
    assert len(alerts(books)) == 1
    for statement in (
        "insert into chatter.alerts (rule_name, subject, subject_value, severity, events) "
        "values ('failed_logins_per_address', 'ip_address', 'x', 'low', 1)",
        "update chatter.security_rules set enabled = false",
        "insert into chatter.security_events (event_type, created_at) values ('login', '2020-1-1')",
        "select chatter.prune_security('2020-01-01')",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            books.connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", "Failed logins"),
        ("event_type", ""),
        ("subject", "email"),
        ("threshold", "0"),
        ("period", "0 seconds"),
        ("severity", "severe"),
        ("block_for", "0 seconds"),
    ],
)
def test_a_rule_that_could_never_be_is_refused(books: Books, column: str, value: str) -> None:
    """A rule is changed by hand; what it can't mean would be no rule, and nobody would know."""
    constraint = f"security_rules_{column}_check"
    change = f"update chatter.security_rules set {column} = %s where name like '%%_per_user'"
    with pytest.raises(errors.CheckViolation, match=constraint):
        books.connection.execute(change.encode(), [value])


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        (
            "insert into chatter.passwords (user_id, hash) select id, 'secret' from chatter.users",
            "passwords_hash_check",
        ),
        (
            "insert into chatter.api_keys (user_id, name, prefix, hash)"
            " select id, 'laptop', 'chatter_', 'chatter_secret' from chatter.users",
            "api_keys_hash_check",
        ),
        (
            "insert into chatter.browser_sessions (user_id, hash, expires_at)"
            " select id, 'secret', now() from chatter.users",
            "browser_sessions_hash_check",
        ),
    ],
)
def test_a_secret_is_kept_as_a_hash_alone(books: Books, statement: str, constraint: str) -> None:
    books.user("ada")
    with pytest.raises(errors.CheckViolation, match=constraint):
        books.connection.execute(statement.encode())
