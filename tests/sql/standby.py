"""A hot standby: a physical copy of a running server that follows it, and may take its place."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psycopg

from chatter_db.embedded.account import Account
from chatter_db.embedded.binaries import find_client
from tests.embedded.conftest import open_directory
from tests.embedded.processes import until
from tests.pooler.pgbouncer import free_port


@contextmanager
def hot_standby(primary: SimpleNamespace, binaries: Path) -> Iterator[str]:
    """The URL of a standby that follows `primary`, of the same version of Postgres."""
    directory = open_directory()
    cluster = directory / "cluster"
    account = Account.for_cluster(cluster)
    account.own(directory)
    server = f"postgresql://{primary.user}:{primary.password}@{primary.host}:{primary.port}"
    try:
        copied = account.run(
            find_client("pg_basebackup", binaries),
            *("--pgdata", cluster, "--dbname", server, "--write-recovery-conf"),
            *("--checkpoint", "fast", "--no-sync"),
        )
        assert copied.returncode == 0, copied.stdout
        port = free_port()
        with (directory / "log").open("wb") as log:
            process = account.spawn(
                [binaries / "postgres", "-D", cluster, "-c", f"port={port}", "-c", "fsync=off"],
                log,
                log.fileno(),
            )
        url = f"postgresql://{primary.user}:{primary.password}@127.0.0.1:{port}/chatter"
        try:
            until(lambda: process.poll() is not None or _answers(url), "the standby answers")
            assert process.poll() is None, (directory / "log").read_text()
            yield url
        finally:
            process.terminate()
            process.wait(30)
    finally:
        shutil.rmtree(directory)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
