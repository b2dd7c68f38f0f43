"""pg_upgrade to the newest Postgres: the books, their triggers, and the positions of readers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from chatter_db import migrating
from chatter_db.embedded.account import Account
from tests import conftest
from tests.clusters import running
from tests.embedded.conftest import open_directory
from tests.migrations.test_upgrading import WRITTEN
from tests.sql.books import Books
from tests.sql.test_restore import BINARIES, EVENTS
from tests.sql.test_usage import differences, fold_all

OLDER = {name: binaries for name, binaries in conftest.BINARIES.items() if binaries}

pytestmark = pytest.mark.skipif(not OLDER, reason="no older Postgres is here to upgrade from")


@pytest.fixture
def directory() -> Iterator[Path]:
    made = open_directory()
    Account.for_cluster(made / "old").own(made)
    yield made
    shutil.rmtree(made)


def make_cluster(cluster: Path, binaries: Path, *more: str) -> None:
    ran = Account.for_cluster(cluster).run(
        *(binaries / "initdb", "-D", cluster, "-U", "chatter", "--auth=trust", "--no-sync"),
        *("--encoding=UTF8", "--locale=C", *more),
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("binaries", OLDER.values(), ids=OLDER)
def test_the_books_of_an_older_server(directory: Path, binaries: Path) -> None:
    old, new = directory / "old", directory / "new"
    make_cluster(old, binaries)
    with (
        running(old, binaries) as port,
        psycopg.connect(f"postgresql://chatter@127.0.0.1:{port}/postgres", autocommit=True) as db,
    ):
        migrating.migrate(f"postgresql://chatter@127.0.0.1:{port}/postgres")
        books = Books(db)
        begin = books.value("select chatter.events_oldest()")
        db.execute(WRITTEN)
        fold_all(books)
        events = books.rows(EVENTS, begin)
        position = books.value("select chatter.events_now()")
        db.execute("update chatter.messages set prompt_tokens = 9 where role = 'assistant'")
        missed = books.rows(EVENTS, position)
        assert len(events) > 80 and missed

    make_cluster(new, BINARIES, "--no-data-checksums")
    ran = Account.for_cluster(new).run(
        *("env", "-C", directory, BINARIES / "pg_upgrade", "-U", "chatter", "--no-sync"),
        *("-b", binaries, "-B", BINARIES, "-d", old, "-D", new, "-s", directory),
    )
    assert ran.returncode == 0, ran.stdout
    with (
        running(new, BINARIES) as port,
        psycopg.connect(f"postgresql://chatter@127.0.0.1:{port}/postgres", autocommit=True) as db,
    ):
        assert db.info.server_version // 10_000 > conftest.major_of(binaries)
        books = Books(db)
        assert books.findings() == {}
        assert differences(books) == {}
        # A reader goes on where it was: the numbers of transactions came along.
        assert books.rows(EVENTS, position) == missed
        books.message(books.value("select id from chatter.conversations limit 1"), cost=1)
        assert len(books.rows(EVENTS, position)) > len(missed)
        assert books.rows(EVENTS, books.value("select chatter.events_now()")) == []
        fold_all(books)
        assert books.findings() == {}
        assert differences(books) == {}
