"""Sign-in against a real Postgres: who gets in, who doesn't, and what is written down."""

import asyncio
import threading
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, Literal

import psycopg
import pytest
from argon2 import PasswordHasher
from sqlalchemy.exc import DBAPIError

from chatter_db import Chatter, SignInBlocked, SignInRefused, UsageError
from chatter_db.accounts import Accounts, Identity, Origin, attempts, passwords
from chatter_db.keys import KEY_PREFIX
from tests.polling import WAITS_FOR_A_LOCK, until

PASSWORD = "correct horse battery staple"
HOME = Origin(ip_address("203.0.113.7"), "Browser/1.0", "request-1")


@pytest.fixture
def accounts(chatter: Chatter) -> Accounts:
    return Accounts(chatter)


def events(db: psycopg.Connection[tuple[object, ...]]) -> list[object]:
    rows = db.execute("select event_type from chatter.security_events order by created_at, id")
    return [row[0] for row in rows]


def everything(db: psycopg.Connection[tuple[object, ...]]) -> str:
    """All that the sign-in ever wrote, as text."""
    tables = ("users", "passwords", "api_keys", "browser_sessions", "security_events", "alerts")
    rows = [db.execute(f"select t::text from chatter.{t} as t".encode()).fetchall() for t in tables]
    return str(rows)


async def test_a_browser_signs_in_and_out(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada", password=PASSWORD, role="admin")
    identity, token = await accounts.sign_in("ada", PASSWORD, origin=HOME)
    assert (identity.user_id, identity.user, identity.role) == (ada.user_id, "ada", "admin")
    assert await accounts.of_session(token) == identity
    assert await accounts.of_session(token + "x") is None

    _, elsewhere = await accounts.sign_in("ada", PASSWORD, origin=HOME)
    await accounts.sign_out(identity, origin=HOME)
    assert await accounts.of_session(token) is None
    assert await accounts.of_session(elsewhere) is not None
    assert events(db) == ["account_created", *["login_success"] * 2, "token_revoked"]
    row = db.execute(
        "select host(ip_address), user_agent, correlation_id, user_id "
        "from chatter.security_events where event_type = 'login_success'"
    ).fetchone()
    assert row == ("203.0.113.7", "Browser/1.0", "request-1", ada.user_id)
    from_where = db.execute("select host(ip_address), user_agent from chatter.browser_sessions")
    assert from_where.fetchall() == [("203.0.113.7", "Browser/1.0")] * 2
    assert token not in everything(db)
    assert PASSWORD not in everything(db)


async def test_a_session_ends_by_itself(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    await accounts.create_user("ada", password=PASSWORD)
    _, token = await accounts.sign_in("ada", PASSWORD)
    db.execute("update chatter.browser_sessions set expires_at = now()")
    assert await accounts.of_session(token) is None


@pytest.mark.parametrize("user", ["ada", "nobody", "without password"])
async def test_the_refusal_tells_nothing(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]], user: str
) -> None:
    await accounts.create_user("ada", password=PASSWORD)
    await accounts.create_user("without password")
    with pytest.raises(SignInRefused, match=r"^User or password is wrong\.$"):
        await accounts.sign_in(user, "a wrong password", origin=HOME)
    assert events(db)[-1] == "login_failure"
    assert "a wrong password" not in everything(db)
    # Of what is too long for a password not even the hash is computed.
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    db.execute("update chatter.passwords set hash = %s", [quick.hash("x" * 1001)])
    with pytest.raises(SignInRefused):
        await accounts.sign_in(user, "x" * 1001, origin=HOME)


async def test_who_guesses_is_kept_out_with_the_right_password_too(
    accounts: Accounts,
    db: psycopg.Connection[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await accounts.create_user("ada", password=PASSWORD)
    await accounts.create_user("bob", password=PASSWORD)
    for _ in range(5):
        with pytest.raises(SignInRefused):
            await accounts.sign_in("ada", "a wrong password", origin=HOME)
    with pytest.raises(SignInBlocked, match="Try again after"):
        await accounts.sign_in("ada", PASSWORD, origin=HOME)
    # The user is kept out, not yet the address.
    await accounts.sign_in("bob", PASSWORD, origin=HOME)
    for _ in range(5):
        with pytest.raises(SignInRefused):
            await accounts.sign_in("nobody", "a wrong password", origin=HOME)
    with pytest.raises(SignInBlocked):
        await accounts.sign_in("bob", PASSWORD, origin=HOME)
    await accounts.sign_in("bob", PASSWORD, origin=Origin(ip_address("2001:db8::1")))
    # One for the address, whoever was named.
    assert events(db).count("login_blocked") == 1
    for noted_every, noted in ((60.0, 1), (0.0, 2)):
        monkeypatch.setattr(attempts, "BLOCKED_NOTED_SECONDS", noted_every)
        with pytest.raises(SignInBlocked):
            await accounts.sign_in("bob", PASSWORD, origin=HOME)
        assert events(db).count("login_blocked") == noted
    assert db.execute("select count(*) from chatter.alerts").fetchone() == (2,)


async def test_who_guesses_keys_is_kept_out_with_a_right_one_too(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada")
    key = await accounts.keys.create(ada.user_id, "laptop")
    guess = f"{KEY_PREFIX}guess"
    for _ in range(10):
        with pytest.raises(SignInRefused):
            await accounts.sign_in_with_key(guess, origin=HOME)
    for secret in (guess, key.secret):
        with pytest.raises(SignInBlocked):
            await accounts.sign_in_with_key(secret, origin=HOME)
    await accounts.sign_in_with_key(key.secret, origin=Origin(ip_address("2001:db8::1")))
    assert events(db).count("login_failure") == 10


async def test_a_browser_may_call_itself_at_length(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    await accounts.create_user("ada", password=PASSWORD)
    await accounts.sign_in("ada", PASSWORD, origin=Origin(user_agent="x" * 5_000))
    kept = db.execute("select length(user_agent) from chatter.browser_sessions").fetchone()
    assert kept == (1_000,)


@pytest.mark.parametrize("subject", ["203.0.113.7", "ada"])
async def test_a_block_is_lifted(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]], subject: str
) -> None:
    await accounts.create_user("ada", password=PASSWORD)
    guessed = "ada" if subject == "ada" else "nobody"
    for _ in range(5 if subject == "ada" else 10):
        with pytest.raises(SignInRefused):
            await accounts.sign_in(guessed, "a wrong password", origin=HOME)
    with pytest.raises(SignInBlocked):
        await accounts.sign_in("ada", PASSWORD, origin=HOME)
    assert await accounts.lift_block(subject)
    await accounts.sign_in("ada", PASSWORD, origin=HOME)
    assert not await accounts.lift_block(subject)
    assert events(db).count("block_lifted") == 1
    with pytest.raises(UsageError, match="no address, and there is no such user"):
        await accounts.lift_block("203.0.113")


@pytest.mark.parametrize("named", ["2001:db8::2:1", "2001:db8::/64"])
async def test_a_network_of_ipv6_is_kept_out_as_one_and_takes_turns(
    accounts: Accounts, named: str
) -> None:
    users = [f"user {number}" for number in range(20)]
    for user in users:
        await accounts.create_user(user, password=PASSWORD)
    home = [Origin(ip_address(f"2001:db8::{number + 1:x}")) for number in range(20)]
    results = await asyncio.gather(
        *(
            accounts.sign_in(user, "a wrong password", origin=origin)
            for user, origin in zip(users, home, strict=True)
        ),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [SignInRefused] * 10 + [SignInBlocked] * 10
    await accounts.sign_in("user 1", PASSWORD, origin=Origin(ip_address("2001:db8:0:1::1")))
    assert await accounts.lift_block(named)
    await accounts.sign_in("user 1", PASSWORD, origin=home[0])
    # Of those that are IPv4's each is counted by itself.
    assert Origin(ip_address("::ffff:192.0.2.1")).counted_as != (
        Origin(ip_address("::ffff:192.0.2.2")).counted_as
    )


async def test_of_guesses_at_once_no_more_are_tried_than_one_after_the_other(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    await accounts.create_user("ada", password=PASSWORD)
    guesses = [*["a wrong password"] * 30, PASSWORD]
    results = await asyncio.gather(
        *(accounts.sign_in("ada", guess, origin=HOME) for guess in guesses), return_exceptions=True
    )
    assert [type(result) for result in results] == [SignInRefused] * 5 + [SignInBlocked] * 26
    assert events(db) == ["account_created", *["login_failure"] * 5, "login_blocked"]
    rules = db.execute("select rule_name from chatter.alerts").fetchall()
    assert rules == [("failed_logins_per_user",)]


async def test_an_address_takes_turns_whoever_it_guesses_for(accounts: Accounts) -> None:
    users = [f"user {number}" for number in range(20)]
    for user in users:
        await accounts.create_user(user, password=PASSWORD)
    results = await asyncio.gather(
        *(accounts.sign_in(user, "a wrong password", origin=HOME) for user in users),
        accounts.sign_in(users[0], PASSWORD, origin=HOME),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [SignInRefused] * 10 + [SignInBlocked] * 11


async def test_the_old_password_is_not_guessed_at_once_either(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada", password=PASSWORD)
    guesses = [*["a wrong password"] * 10, PASSWORD]
    results = await asyncio.gather(
        *(accounts.check_password(ada, guess, origin=HOME) for guess in guesses),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [SignInRefused] * 5 + [SignInBlocked] * 6
    assert events(db).count("login_blocked") == 1


async def test_a_note_that_could_not_be_made_is_made_the_next_time(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    await accounts.create_user("ada", password=PASSWORD)
    for _ in range(5):
        with pytest.raises(SignInRefused):
            await accounts.sign_in("ada", "a wrong password", origin=HOME)
    db.execute("alter table chatter.security_events rename to elsewhere")
    with pytest.raises(DBAPIError):
        await accounts.sign_in("ada", PASSWORD, origin=HOME)
    db.execute("alter table chatter.elsewhere rename to security_events")
    with pytest.raises(SignInBlocked):
        await accounts.sign_in("ada", PASSWORD, origin=HOME)
    assert events(db).count("login_blocked") == 1


async def test_failures_in_another_process_undo_a_session_that_is_being_begun(
    accounts: Accounts, url: str, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada", password=PASSWORD)
    with psycopg.connect(url) as holding:
        holding.execute("lock table chatter.browser_sessions in share mode")
        signing_in = asyncio.create_task(accounts.sign_in("ada", PASSWORD, origin=HOME))
        await until(lambda: db.execute(WAITS_FOR_A_LOCK).fetchall())
        # Its password was right, and it was not kept out when it was asked for.
        failed_elsewhere(db, ada)
    with pytest.raises(SignInBlocked):
        await signing_in
    assert db.execute("select count(*) from chatter.browser_sessions").fetchone() == (0,)
    assert events(db)[-1] == "login_blocked"
    assert "login_success" not in events(db)


async def test_failures_in_another_process_count_while_the_old_password_is_tried(
    chatter: Chatter, db: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Held(PasswordHasher):
        """Argon2 that begins, and goes on when it may."""

        def verify(self, *given: Any) -> Literal[True]:
            begun.set()
            go_on.wait(20)
            return super().verify(*given)

    monkeypatch.setattr(passwords, "PasswordHasher", Held)
    accounts = Accounts(chatter)
    ada = await accounts.create_user("ada", password=PASSWORD)
    checking = asyncio.create_task(accounts.check_password(ada, PASSWORD, origin=HOME))
    await asyncio.to_thread(begun.wait, 20)
    failed_elsewhere(db, ada)
    go_on.set()
    with pytest.raises(SignInBlocked):
        await checking


def failed_elsewhere(db: psycopg.Connection[tuple[object, ...]], identity: Identity) -> None:
    db.execute(
        "insert into chatter.security_events (event_type, user_id) "
        "select 'login_failure', %s from generate_series(1, 5)",
        [identity.user_id],
    )


async def test_a_new_password_signs_every_browser_out(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada", password=PASSWORD)
    left, _ = await accounts.sign_in("ada", PASSWORD)
    await accounts.sign_out(left)
    ended = "select revoked_at, (select changed_at from chatter.passwords where user_id = %s)"
    ended += " from chatter.browser_sessions where id = %s"
    before = db.execute(ended, [ada.user_id, left.session_id]).fetchone()
    await accounts.create_user("bob", password=PASSWORD)
    _, token = await accounts.sign_in("ada", PASSWORD)
    bob, of_bob = await accounts.sign_in("bob", PASSWORD)
    await accounts.set_password(ada.user_id, "another good password")
    assert await accounts.of_session(token) is None
    assert await accounts.of_session(of_bob) == bob
    # When a browser was signed out before stays as it was; when the password was set doesn't.
    after = db.execute(ended, [ada.user_id, left.session_id]).fetchone()
    assert before is not None and after is not None
    assert after[0] == before[0] and after[1] != before[1]
    with pytest.raises(SignInRefused):
        await accounts.sign_in("ada", PASSWORD)
    await accounts.sign_in("ada", "another good password")


async def test_the_old_password_begins_no_session_after_it_was_changed(
    chatter: Chatter, db: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Held(PasswordHasher):
        """Argon2 that has found the password right, and says so when it may."""

        def verify(self, *given: Any) -> Literal[True]:
            right = super().verify(*given)
            begun.set()
            go_on.wait(20)
            return right

    monkeypatch.setattr(passwords, "PasswordHasher", Held)
    accounts = Accounts(chatter)
    ada = await accounts.create_user("ada", password=PASSWORD)
    signing_in = asyncio.create_task(accounts.sign_in("ada", PASSWORD, origin=HOME))
    await asyncio.to_thread(begun.wait, 20)
    await accounts.set_password(ada.user_id, "another good password")
    go_on.set()
    with pytest.raises(SignInRefused, match=r"^User or password is wrong\.$"):
        await signing_in
    assert db.execute("select count(*) from chatter.browser_sessions").fetchone() == (0,)
    assert events(db) == ["account_created", "password_changed", "login_failure"]


async def test_a_session_that_began_while_the_password_is_changed_ends_with_it(
    accounts: Accounts, url: str, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada", password=PASSWORD)
    with psycopg.connect(url) as holding:
        holding.execute("lock table chatter.security_events in share mode")
        signing_in = asyncio.create_task(accounts.sign_in("ada", PASSWORD, origin=HOME))
        await until(lambda: db.execute(WAITS_FOR_A_LOCK).fetchall())
        # Its session is written and not committed: who changes the password can't see it yet.
        changing = asyncio.create_task(accounts.set_password(ada.user_id, "another good password"))
        await asyncio.sleep(1)
    _, token = await signing_in
    await changing
    assert await accounts.of_session(token) is None


async def test_the_old_password_is_replaced_once(accounts: Accounts) -> None:
    ada = await accounts.create_user("ada", password=PASSWORD)
    old = await accounts.check_password(ada, PASSWORD)
    await accounts.set_password(ada.user_id, "another good password", replacing=old)
    with pytest.raises(SignInRefused):
        await accounts.set_password(ada.user_id, "a password of a thief", replacing=old)
    await accounts.sign_in("ada", "another good password")


@pytest.mark.parametrize("password", ["", "short", "x" * 1001])
async def test_a_password_that_will_not_do(accounts: Accounts, password: str) -> None:
    with pytest.raises(UsageError, match="12 to 1000 characters"):
        await accounts.create_user("ada", password=password)


async def test_a_user_is_made_once(accounts: Accounts) -> None:
    made = await asyncio.gather(
        *(accounts.create_user("ada") for _ in range(8)), return_exceptions=True
    )
    assert sum(not isinstance(result, Exception) for result in made) == 1


async def test_a_key_is_shown_once_and_known_by_its_hash(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada, bob = await accounts.create_user("ada"), await accounts.create_user("bob")
    key = await accounts.keys.create(ada.user_id, "laptop", origin=HOME)
    assert key.secret.startswith(KEY_PREFIX)
    assert key.secret not in everything(db)
    identity = await accounts.keys.of_secret(key.secret)
    assert identity is not None
    await accounts.keys.note_use(identity, origin=HOME)
    assert (identity.user, identity.api_key_id) == ("ada", key.id)
    assert await accounts.keys.of_secret(key.secret[:-1]) is None

    assert not await accounts.keys.revoke(bob.user_id, key.id)
    assert await accounts.keys.revoke(ada.user_id, key.id)
    assert not await accounts.keys.revoke(ada.user_id, key.id)
    assert await accounts.keys.of_secret(key.secret) is None
    assert events(db)[2:] == ["api_key_created", "api_key_used", "api_key_revoked"]


async def test_each_use_of_a_key_counts_and_its_time_is_to_the_minute(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada")
    key = await accounts.keys.create(ada.user_id, "laptop")

    async def use() -> None:
        identity = await accounts.keys.of_secret(key.secret)
        assert identity is not None
        await accounts.keys.note_use(identity, origin=HOME)

    used = "select last_used_at, last_used_at > now() - interval '1 minute' from chatter.api_keys"
    await use()
    first = db.execute(used).fetchone()
    assert first is not None and first[1] is True
    await use()
    assert db.execute(used).fetchone() == first
    db.execute("update chatter.api_keys set last_used_at = now() - interval '1 minute'")
    await use()
    assert (db.execute(used).fetchone() or ())[1:] == (True,)
    assert events(db).count("api_key_used") == 3


async def test_a_key_ends_when_it_was_to_end(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada")
    key = await accounts.keys.create(ada.user_id, "laptop", lasts=timedelta(hours=1))
    assert await accounts.keys.of_secret(key.secret) is not None
    db.execute("update chatter.api_keys set expires_at = now()")
    assert await accounts.keys.of_secret(key.secret) is None


async def test_a_key_is_rotated_without_a_gap(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada, bob = await accounts.create_user("ada"), await accounts.create_user("bob")
    old = await accounts.keys.create(ada.user_id, "laptop")
    assert await accounts.keys.rotate(bob.user_id, old.id) is None
    new = await accounts.keys.rotate(ada.user_id, old.id)
    assert new is not None
    for secret in (old.secret, new.secret):
        assert await accounts.keys.of_secret(secret) is not None
    ends = db.execute(
        "select expires_at - now() < interval '1 day' from chatter.api_keys where id = %s",
        [old.id],
    ).fetchone()
    assert ends == (True,)
    assert await accounts.keys.rotate(ada.user_id, old.id, grace=timedelta()) is not None
    assert await accounts.keys.of_secret(old.secret) is None
    # No key becomes good for longer, or again.
    short = await accounts.keys.create(ada.user_id, "guest", lasts=timedelta(hours=1))
    assert await accounts.keys.rotate(ada.user_id, short.id) is not None
    assert db.execute(
        "select expires_at from chatter.api_keys where id = %s", [short.id]
    ).fetchone() == (short.expires_at,)
    assert await accounts.keys.revoke(ada.user_id, new.id)
    for over in (old, new):
        assert await accounts.keys.rotate(ada.user_id, over.id) is None


async def test_of_two_who_rotate_a_key_at_once_the_other_finds_it_ended(
    accounts: Accounts, url: str, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada")
    old = await accounts.keys.create(ada.user_id, "laptop")
    with psycopg.connect(url) as other:
        other.execute("select from chatter.api_keys for update")
        both = [
            asyncio.create_task(accounts.keys.rotate(ada.user_id, old.id, grace=timedelta()))
            for _ in range(2)
        ]
        await until(lambda: len(db.execute(WAITS_FOR_A_LOCK).fetchall()) == 2)
    assert [made is None for made in await asyncio.gather(*both)].count(True) == 1
    assert db.execute("select count(*) from chatter.api_keys").fetchone() == (2,)


async def test_a_browser_that_signed_in_with_a_key_is_signed_out_with_it(
    accounts: Accounts, db: psycopg.Connection[tuple[object, ...]]
) -> None:
    ada = await accounts.create_user("ada", password=PASSWORD)
    leaked, kept = [await accounts.keys.create(ada.user_id, name) for name in ("leaked", "kept")]
    (thief, stolen), (own, token) = [
        await accounts.sign_in_with_key(key.secret) for key in (leaked, kept)
    ]
    by_password, _ = await accounts.sign_in("ada", PASSWORD)
    assert await accounts.of_session(stolen) == thief

    assert await accounts.keys.revoke(ada.user_id, leaked.id)
    assert await accounts.of_session(stolen) is None
    assert await accounts.of_session(token) == own
    sessions = {thief.credential, own.credential, by_password.credential}
    assert set(await accounts.still_good(sessions)) == sessions - {thief.credential}

    # One that was rotated is good for a day, and so is the session.
    assert await accounts.keys.rotate(ada.user_id, kept.id)
    assert await accounts.of_session(token) == own
    db.execute("update chatter.api_keys set expires_at = now() where revoked_at is null")
    assert await accounts.of_session(token) is None


@pytest.mark.parametrize("browser", [False, True])
async def test_who_came_by_a_key_that_ends_makes_none_that_lasts_longer(
    accounts: Accounts, browser: bool
) -> None:
    ada = await accounts.create_user("ada")
    day = timedelta(days=1)
    limited = await accounts.keys.create(ada.user_id, "guest", lasts=day)
    endless = await accounts.keys.create(ada.user_id, "own")
    guest = await accounts.keys.of_secret(limited.secret)
    if browser:
        guest, _ = await accounts.sign_in_with_key(limited.secret)
    assert guest is not None
    own = await accounts.keys.of_secret(endless.secret)

    for lasts in (None, 10 * day):
        made = await accounts.keys.create(ada.user_id, "more", lasts=lasts, by=guest)
        assert made.expires_at == limited.expires_at
        rotated = await accounts.keys.rotate(ada.user_id, made.id, lasts=lasts, by=guest)
        assert rotated is not None and rotated.expires_at == limited.expires_at
        if lasts is None:
            continue
        # Not even in the place of one that lasts longer, or of its own.
        for key in (await accounts.keys.create(ada.user_id, "other"), limited):
            rotated = await accounts.keys.rotate(ada.user_id, key.id, lasts=lasts, by=guest)
            assert rotated is not None and rotated.expires_at == limited.expires_at
    shorter = await accounts.keys.create(ada.user_id, "short", lasts=day / 2, by=guest)
    assert shorter.expires_at is not None and limited.expires_at is not None
    assert shorter.expires_at < limited.expires_at
    assert (await accounts.keys.create(ada.user_id, "mine", by=own)).expires_at is None


async def test_what_follows_a_key_ends_with_it_unless_another_time_is_asked_for(
    accounts: Accounts,
) -> None:
    ada = await accounts.create_user("ada")
    old = await accounts.keys.create(ada.user_id, "guest", lasts=timedelta(days=10))
    first = await accounts.keys.rotate(ada.user_id, old.id)
    assert first is not None and first.expires_at == old.expires_at
    longer = await accounts.keys.rotate(ada.user_id, first.id, lasts=timedelta(days=20))
    assert longer is not None and longer.expires_at is not None and old.expires_at is not None
    assert longer.expires_at > old.expires_at + timedelta(days=9)
    # One that was rotated ends within a day, and so does what is made in its place again.
    again = await accounts.keys.rotate(ada.user_id, old.id)
    assert again is not None and again.expires_at is not None
    assert again.expires_at < old.expires_at - timedelta(days=8)
    with pytest.raises(UsageError, match="positive time"):
        await accounts.keys.rotate(ada.user_id, longer.id, lasts=timedelta())


@pytest.mark.parametrize(("name", "lasts"), [("", None), ("x" * 201, None), ("x", timedelta())])
async def test_a_key_that_can_not_be(
    accounts: Accounts, name: str, lasts: timedelta | None
) -> None:
    ada = await accounts.create_user("ada")
    with pytest.raises(UsageError):
        await accounts.keys.create(ada.user_id, name, lasts=lasts)
