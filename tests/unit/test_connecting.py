"""Connections: what URLs and databases say of them, and servers that go meanwhile."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from chatter_db import Chatter, DatabaseUnavailable, UsageError, database, migrating
from chatter_db.database import engines, on_asyncpg, on_psycopg
from chatter_db.models import Message, User
from chatter_db.queries import statement
from chatter_db.recorder import connection as recorder_connection
from chatter_db.settings import settings
from tests.conftest import ONE_SERVER


@ONE_SERVER
def test_cut_after_signing_in(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy has questions to the server before anybody has the connection."""
    connect = database.connect

    def cut(url: str) -> psycopg.Connection[Any]:
        connection = connect(url)
        db.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        return connection

    monkeypatch.setattr(engines, "connect", cut)
    lost = r"Lost the connection to Postgres at 127\.0\.0\.1"
    with pytest.raises(DatabaseUnavailable, match=lost), Chatter.connect(url):
        pass


@pytest.mark.parametrize(
    ("meanwhile", "error"),
    [
        ("select pg_terminate_backend(pg_backend_pid())", DatabaseUnavailable),
        ("select 1 / 0", psycopg.errors.DivisionByZero),
    ],
)
@ONE_SERVER
def test_a_connection_whose_path_is_not_set_is_closed(
    url: str, monkeypatch: pytest.MonkeyPatch, meanwhile: str, error: type[Exception]
) -> None:
    made = []

    def fail(connection: psycopg.Connection[Any]) -> None:
        made.append(connection)
        connection.execute(meanwhile.encode())

    monkeypatch.setattr(on_psycopg, "_pin_path", fail)
    with pytest.raises(error):
        database.connect(url)
    assert made[0].closed


@ONE_SERVER
async def test_one_of_asyncpgs_is_closed_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    async def never(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        made.append(connection)
        await asyncio.sleep(60)

    monkeypatch.setattr(on_asyncpg, "pin_path", never)
    # Whoever waited for it has gone.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await database.asyncpg_connection(url, "tests")
    assert made[0].is_closed()


@pytest.mark.long
@pytest.mark.parametrize("asked", ["session_keepalives", "session_path"])
@ONE_SERVER
async def test_a_server_that_says_no_more_is_not_waited_for(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    frozen = []
    found = "select pid from pg_stat_activity where application_name = 'frozen'"

    def freeze(name: str) -> str:
        if name == asked:
            frozen.extend(db.execute(found).fetchall())
            os.kill(frozen[0][0], signal.SIGSTOP)
        return statement(name)

    monkeypatch.setattr(on_asyncpg, "statement", freeze)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(20) as patience:
                await database.asyncpg_connection(url, "frozen")
        assert not patience.expired()
    finally:
        os.kill(frozen[0][0], signal.SIGCONT)


def lose_between_two_steps(patched: pytest.MonkeyPatch) -> None:
    prepared: Any = asyncpg.Connection._get_statement  # type: ignore[attr-defined]

    async def lose(self: "asyncpg.Connection[Any]", *args: Any, **kwargs: Any) -> Any:
        statement = await prepared(self, *args, **kwargs)
        self.terminate()
        return statement

    patched.setattr(asyncpg.Connection, "_get_statement", lose)


@pytest.mark.parametrize("ask", ["execute", "fetch", "fetchval"])
@ONE_SERVER
async def test_a_loss_between_two_steps_of_asyncpg_is_one(
    url: str, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    connection = await database.asyncpg_connection(url, "tests")
    lose_between_two_steps(monkeypatch)
    with pytest.raises(asyncpg.InterfaceError, match="the connection was lost"):
        await getattr(connection, ask)("select $1::integer", 1)


def test_a_mistake_is_no_loss() -> None:
    mistaken: Any = 5
    with pytest.raises(AttributeError, match="fetch"), on_asyncpg._loss_told():
        mistaken.fetch()


@ONE_SERVER
async def test_one_while_the_path_is_set_is_told_by_the_engine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.async_engine(url)
    lose_between_two_steps(monkeypatch)
    with pytest.raises(DatabaseUnavailable, match="the connection was lost"):
        await engine.connect()


@ONE_SERVER
async def test_a_server_that_takes_no_writes_is_given_up_by_either_driver(
    url: str, db: psycopg.Connection[Any]
) -> None:
    """It may be a standby by now: the next connection finds the primary."""
    database_name = sql.Identifier(db.info.dbname)
    mode = sql.SQL("alter database {} set default_transaction_read_only = {}")
    db.execute(mode.format(database_name, sql.SQL("on")))
    db.execute("set default_transaction_read_only = off")
    engine = database.sync_engine(url)
    several = database.async_engine(url)
    note = text("insert into chatter.users (external_id) values ('ada')")
    other = text("insert into chatter.users (external_id) values ('bob')")
    with pytest.raises(DBAPIError), engine.begin() as asking:
        asking.execute(note)
    with pytest.raises(DBAPIError):
        async with several.begin() as connection:
            await connection.execute(other)
    db.execute(mode.format(database_name, sql.SQL("off")))
    with engine.begin() as asking:
        asking.execute(note)
    async with several.begin() as connection:
        await connection.execute(other)
    engine.dispose()
    await several.dispose()


@ONE_SERVER
async def test_cut_while_asyncpg_sets_its_codecs(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer to a request is then 503, as it is for any lost connection."""
    connect = database.asyncpg_connection

    async def cut(*place: str) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await connect(*place)
        db.execute("select pg_terminate_backend(%s)", [connection.get_server_pid()])
        while not connection.is_closed():
            await asyncio.sleep(0.01)
        return connection

    with Chatter.connect(url) as chatter:
        monkeypatch.setattr(engines, "asyncpg_connection", cut)
        with pytest.raises(DBAPIError) as raised:
            async with chatter.session() as session:
                await session.scalar(select(1))
        assert raised.value.connection_invalidated


@ONE_SERVER
async def test_parameters_that_libpq_knows_and_asyncpg_does_not(url: str) -> None:
    """As Neon's URLs have them, and administrators."""
    more = (
        "sslmode=prefer&channel_binding=prefer&gssencmode=disable&connect_timeout=5&keepalives=1"
        "&load_balance_hosts=disable&application_name=mine&target_session_attrs=read-write"
        "&options=-c%20statement_timeout%3D30000"
    )
    async with Chatter.connect(f"{url}?{more}") as chatter, chatter.session() as session:
        assert await session.scalar(select(func.current_setting("statement_timeout"))) == "30s"
        await chatter.create_conversation(external_id="c")
        hub = chatter.event_hub()
        await hub.check(await hub.oldest())
        first = await anext(chatter.events(after=await hub.oldest()))
        assert first.event_type == "conversation_created"


@ONE_SERVER
async def test_a_url_for_sqlalchemy_and_asyncpg(url: str) -> None:
    """What the host app has already."""
    own = url.replace("postgresql://", "postgresql+asyncpg://")
    async with Chatter.connect(f"{own}?ssl=prefer") as chatter, chatter.session() as session:
        assert await session.scalar(select(1)) == 1


@pytest.mark.parametrize("dsn", ["", "support", "mysql://somebody@127.0.0.1/db", 5, b"support"])
def test_what_is_no_url_of_postgres_is_refused(dsn: Any) -> None:
    """An empty one too, as of a variable that isn't set: the books are not somewhere else then."""
    with (
        pytest.raises(UsageError, match="must begin with postgresql://"),
        Chatter.connect(dsn),
    ):
        pass


@pytest.mark.parametrize("parameter", ["pgbouncer=true", "ssl=disable", "schema=chatter"])
def test_parameters_of_other_drivers_are_refused(parameter: str) -> None:
    with (
        pytest.raises(UsageError, match="parameter that libpq doesn't know"),
        Chatter.connect(f"postgresql://somebody@127.0.0.1/db?{parameter}"),
    ):
        pass


def test_the_systems_certificates_are_no_file_to_asyncpg() -> None:
    """`sslrootcert=system`, libpq's word, with which everything is verified."""
    url = "postgresql://somebody@db.example/books?sslmode=verify-full&sslrootcert=system"
    options = database.asyncpg_options(url, "tests")
    assert options["ssl"].verify_mode == ssl.CERT_REQUIRED
    assert options["ssl"].check_hostname
    assert "sslrootcert" not in options["dsn"]


@ONE_SERVER
async def test_a_connection_that_was_ended_while_idle_is_made_anew(
    url: str, db: psycopg.Connection[Any]
) -> None:
    async with Chatter.connect(url) as chatter:
        async with chatter.session() as session:
            raw = await (await session.connection()).get_raw_connection()
            connection = raw.driver_connection
        assert connection is not None
        db.execute("select pg_terminate_backend(%s)", [connection.get_server_pid()])
        while not connection.is_closed():
            await asyncio.sleep(0.01)
        async with chatter.session() as session:
            assert await session.scalar(select(1)) == 1


@ONE_SERVER
def test_one_of_psycopgs_too(url: str, db: psycopg.Connection[Any]) -> None:
    with Chatter.connect(url) as chatter:
        with chatter.sync_session() as session:
            ended = session.scalar(select(func.pg_backend_pid()))
        db.execute("select pg_terminate_backend(%s, 5000)", [ended])
        with chatter.sync_session() as session:
            assert session.scalar(select(func.pg_backend_pid())) != ended


async def test_whatever_isolation_the_database_has_by_default(
    url: str, db: psycopg.Connection[Any]
) -> None:
    """Two who write into one conversation wait for each other, and none is refused."""
    db.execute(f"alter database {db.info.dbname} set default_transaction_isolation = serializable")
    level = select(func.current_setting("transaction_isolation"))
    async with Chatter.connect(url) as chatter:
        conversation = (await chatter.create_conversation()).id
        async with chatter.session() as first, chatter.session() as second:
            for session in (first, second):
                assert await session.scalar(level) == "read committed"
                session.add(Message(conversation_id=conversation, role="user", content="Hello"))
            await first.flush()
            waiting = asyncio.create_task(second.commit())
            await first.commit()
            await waiting
    engine = database.sync_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(level) == "read committed"
    engine.dispose()
    with database.connect(url) as plain:
        assert plain.execute("show transaction_isolation").fetchall() == [("read committed",)]


@ONE_SERVER
async def test_a_peer_that_vanished_is_noticed_on_both_sides(url: str) -> None:
    """Not by a network that is cut, which takes more rights than tests have, but by what is set."""
    async with Chatter.connect(url) as chatter, chatter.session() as session:
        raw = await (await session.connection()).get_raw_connection()
        assert raw.driver_connection is not None
        own = raw.driver_connection._transport.get_extra_info("socket")
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
        limits = [
            await session.scalar(select(func.current_setting(name)))
            for name in ("tcp_keepalives_idle", "tcp_keepalives_count", "tcp_user_timeout")
        ]
        assert limits == ["5", "2", "10000"]
    with contextlib.closing(recorder_connection.connect(url)) as booking:
        assert booking.execute("show tcp_keepalives_idle").fetchone() == ("5",)


# Of errors: whether Postgres may take the same later, whether the connection is of no use, whether
# it is the value that can't be taken.
MEANING = {
    "08006": (True, True, False),
    "25006": (True, True, False),
    "25P03": (True, True, False),
    "25P04": (True, True, False),
    "57P01": (True, True, False),
    "40001": (True, False, False),
    "40P01": (True, False, False),
    "53100": (True, False, False),
    "55P03": (True, False, False),
    "57014": (True, False, False),
    "22003": (False, False, True),
    "23514": (False, False, True),
    "23505": (False, False, False),
    "42501": (False, False, False),
}


@pytest.mark.parametrize("state", MEANING)
@ONE_SERVER
async def test_what_an_error_means_by_either_driver(chatter: Chatter, state: str) -> None:
    passes, ends, unfit = MEANING[state]
    refuse = text(
        "do $$ begin raise exception 'not this' "
        f"using errcode = '{state}', detail = 'A secret.'; end $$"
    )

    async def by_asyncpg() -> None:
        async with chatter.session() as session:
            await session.execute(refuse)

    async def by_psycopg() -> None:
        with chatter.sync_session() as session:
            session.execute(refuse)

    for ask in (by_asyncpg, by_psycopg):
        with pytest.raises(DBAPIError) as raised:
            await ask()
        told = f"Postgres can't do that now: not this (SQLSTATE {state})."
        assert database.hindrance(raised.value) == (told if passes else None)
        assert database.denial(raised.value) == ("not this" if state == "42501" else None)
        unfitting = pytest.raises(UsageError if unfit else DBAPIError, match="not this")
        with unfitting as refused, database.refusals_told("It"):
            await ask()
        assert not unfit or str(refused.value) == "It can't be booked: not this."
    lost = pytest.raises(DatabaseUnavailable if ends else DBAPIError)
    with lost, database.losses_told(chatter.url):
        await by_psycopg()


@ONE_SERVER
async def test_no_error_quotes_what_was_said(chatter: Chatter) -> None:
    fail = text("select 1 / (length(cast(:said as text)) - 6)")
    with pytest.raises(DBAPIError) as by_asyncpg:
        async with chatter.session() as session:
            await session.execute(fail, {"said": "secret"})
    with pytest.raises(DBAPIError) as by_psycopg, chatter.sync_session() as asking:
        asking.execute(fail, {"said": "secret"})
    for raised in (by_asyncpg, by_psycopg):
        assert "division by zero" in str(raised.value)
        assert "secret" not in str(raised.value)


@ONE_SERVER
async def test_what_was_said_is_told_whole(chatter: Chatter) -> None:
    words = "denied for <x>: ask the owner"
    fail = text(f"do $$ begin raise exception '{words}'; end $$")
    with pytest.raises(DBAPIError) as by_asyncpg:
        async with chatter.session() as session:
            await session.execute(fail)
    with pytest.raises(DBAPIError) as by_psycopg, chatter.sync_session() as asking:
        asking.execute(fail)
    assert [database.said(raised.value) for raised in (by_asyncpg, by_psycopg)] == [words] * 2


HOSTILE = """
create function public.taken({left}, {right}) returns boolean language plpgsql as
$$ begin raise exception 'ran as %', current_user; end $$;
create operator public.= (leftarg = {left}, rightarg = {right}, function = public.taken)
"""


@pytest.mark.parametrize("pooler", ["", "session"])
async def test_no_operator_of_another_login_is_run(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, pooler: str
) -> None:
    """One in `public` that fits better than Postgres's own would run with our rights."""
    for left, right in (("text", "varchar"), ("name", "varchar")):
        db.execute(sql.SQL(HOSTILE).format(left=sql.SQL(left), right=sql.SQL(right)))
    monkeypatch.setenv("CHATTER_POOLER", pooler)
    settings.cache_clear()
    wanted = select(User.id).where(User.external_id == "ada")
    async with Chatter.connect(url) as chatter:
        made = await chatter.create_conversation(user="ada")
        async with chatter.session() as session:
            assert await session.scalar(wanted) == made.user_id
        with chatter.sync_session() as asking:
            assert asking.scalar(wanted) == made.user_id
        reading = await chatter.event_hub()._reader()
        for _ in range(2):
            assert await reading.fetchval("show search_path") == "pg_catalog, pg_temp"
    assert not migrating.migrate(url).changed
    with recorder_connection.connect(url) as recording:
        assert recording.execute("show search_path").fetchone() == ("pg_catalog, pg_temp",)
