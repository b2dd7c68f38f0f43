"""Directories for servers, and a cluster made once and copied per test."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chatter_db.embedded import lease, wait_until_stopped

from .processes import UNSAFE, Holder, copy_of

MEMORY = Path("/dev/shm")


def open_directory() -> Path:
    """A temporary directory that the server's OS user can enter, unlike pytest's."""
    directory = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    directory.chmod(0o755)
    return directory


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory; servers in its subdirectories have to be gone after the test."""
    path = open_directory()
    yield path
    for data_dir in path.iterdir():
        if data_dir.is_dir():
            wait_until_stopped(data_dir)
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A data directory with a cluster, not running, that has a table `kept` with one row."""
    path = open_directory()
    data_dir = path / "data"
    with lease(data_dir, settings=UNSAFE) as server, psycopg.connect(server.url) as connection:
        connection.execute("create table kept (word text)")
        connection.execute("insert into kept values ('still here')")
    wait_until_stopped(data_dir)
    yield data_dir
    shutil.rmtree(path)


@pytest.fixture
def data_dir(template: Path, directory: Path) -> Path:
    """A data directory with a cluster, not running, like `template`."""
    return copy_of(template, directory / "data")


@pytest.fixture
def hold(directory: Path) -> Iterator[Callable[..., Holder]]:
    """Starts a process that holds a lease; it ends with the test, before `directory` goes."""
    holders: list[Holder] = []

    def start(*arguments: Any, **options: Any) -> Holder:
        holders.append(Holder(*arguments, **options))
        return holders[-1]

    yield start
    for holder in holders:
        if holder.process.returncode is None:
            holder.process.kill()
            holder.end()
