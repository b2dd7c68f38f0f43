"""A logical replica by the recipe of .github/OPERATIONS.md, word for word, and its promotion."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer
from tests.conftest import migrate_template, throwaway_server
from tests.migrations.test_upgrading import WRITTEN
from tests.polling import wait_until
from tests.recorder.test_writer import message, start
from tests.sql.books import Books
from tests.sql.test_usage import differences, fold_all

OPERATIONS = Path(__file__).parents[2] / ".github" / "OPERATIONS.md"
CONNECTION = "host=primary dbname=chatter"

TABLES = """
select c.oid::regclass::text from pg_class as c
where c.relkind = 'r' and c.relnamespace in ('chatter'::regnamespace, 'analytics'::regnamespace)
order by 1
"""


def recipe() -> list[str]:
    """The blocks of SQL: on the primary, on the replica, and to promote it."""
    section = OPERATIONS.read_text("utf-8").split("## A logical replica")[1].split("\n## ")[0]
    return re.findall(r"```sql\n(.*?)```", section, re.DOTALL)


def follow(block: str, books: Books, primary: str = "") -> None:
    """Runs a block as psql would: each statement a transaction."""
    for statement in block.replace(CONNECTION, primary).split(";\n"):
        if statement.strip():
            books.connection.execute(statement)


def url_of(server: SimpleNamespace) -> str:
    return f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/chatter"


@contextmanager
def books_of(server: SimpleNamespace) -> Iterator[Books]:
    """The migrated books on a server."""
    where = {"user": server.user, "password": server.password}
    where |= {"host": server.host, "port": server.port, "dbname": "chatter"}
    migrate_template(**where)
    with psycopg.connect(**where, autocommit=True) as connection:
        yield Books(connection)


def caught_up(primary: Books, replica: Books) -> None:
    """Waits until the replica has all that the primary had when this was called."""
    copied = "select bool_and(srsubstate = 'r') from pg_subscription_rel"
    wait_until(lambda: replica.value(copied), "the first copy is over")
    # Not what is written: the primary commits without waiting for that.
    now = primary.value("select pg_current_wal_insert_lsn()")
    replayed = "select bool_and(replay_lsn >= %s) from pg_stat_replication"
    wait_until(lambda: primary.value(replayed, now), "what was written is replayed")


def contents(books: Books) -> dict[str, list[tuple[object, ...]]]:
    tables = [name for (name,) in books.rows(TABLES)]
    assert len(tables) > 30
    return {name: sorted(books.rows(f"select t::text from {name} as t")) for name in tables}


def test_a_logical_replica_and_its_promotion() -> None:
    publish, subscribe, promote = recipe()
    with (
        throwaway_server(wal_level="logical") as one,
        throwaway_server() as other,
        books_of(one) as primary,
        books_of(other) as replica,
    ):
        primary.connection.execute(WRITTEN)  # before there is a replica
        fold_all(primary)
        follow(publish, primary)
        address = (
            f"host={one.host} port={one.port} user={one.user} password={one.password} "
            "dbname=chatter"
        )
        follow(subscribe, replica, address)
        caught_up(primary, replica)

        # And while there is one: rows, corrections, some of it folded.
        (conversation, *_), *_ = primary.rows("select id from chatter.conversations order by id")
        for _ in range(3):
            primary.message(conversation, prompt_tokens=5, cost=1)
        fold_all(primary)
        primary.message(conversation, prompt_tokens=7)
        primary.connection.execute("update chatter.messages set cost = 2 where cost = 1")
        primary.connection.execute("delete from chatter.messages where prompt_tokens = 3")
        caught_up(primary, replica)
        assert contents(replica) == contents(primary)
        assert replica.findings() == {}
        assert differences(replica) == {}

        # A recorder that is there too early waits.
        booking = Writer(url_of(other), open_spool("replica"))
        run = start()
        booking.submit([run, message(run)]).result(timeout=60)
        assert contents(replica) == contents(primary)

        position = primary.value("select chatter.events_now()")
        follow(promote, replica)
        wait_until(
            lambda: (
                replica.value("select count(*) from chatter.messages where prompt_tokens = 10") == 1
            ),
            "it is booked",
        )
        booking.close()
        assert (booking.lost, booking.reduced) == (0, 0)
        began = replica.value("select chatter.events_oldest()")
        ids = {id_ for (id_,) in replica.rows("select id from chatter.events")}
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="no position"):
            replica.rows("select * from chatter.events_after(%s)", position)

        # It goes on by itself: totals, events with ids of their own, rollups.
        replica.message(conversation, prompt_tokens=9, cost=3)
        assert replica.findings() == {}
        fold_all(replica)
        assert differences(replica) == {}
        replica.rows("select * from analytics.refresh()")
        told = [
            id_ for (id_,) in replica.rows("select id from chatter.events_after(%s, 1000)", began)
        ]
        assert len(told) == len(set(told)) > len(ids)
        assert ids < set(told)
