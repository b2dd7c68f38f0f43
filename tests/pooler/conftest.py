"""A database behind PgBouncer, and the one setting that it takes."""

import shutil
from collections.abc import Iterator

import pytest

from chatter_db.settings import settings
from tests.embedded.conftest import open_directory
from tests.pooler.pgbouncer import PROGRAM, pgbouncer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PROGRAM is None:
        for item in items:
            if "tests/pooler/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="there is no pgbouncer here"))


@pytest.fixture
def pooled_url(url: str) -> Iterator[str]:
    """The database at `url` by way of PgBouncer."""
    directory = open_directory()
    with pgbouncer(url, directory) as pooled:
        yield pooled
    shutil.rmtree(directory)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """CHATTER_POOLER says so."""
    monkeypatch.setenv("CHATTER_POOLER", "transaction")
    settings.cache_clear()
