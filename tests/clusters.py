"""Postgres on a cluster that others made: by a copy, by an upgrade."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import pq

from chatter_db.embedded.account import Account
from tests.polling import wait_until
from tests.pooler.pgbouncer import free_port


@contextmanager
def running(cluster: Path, binaries: Path) -> Iterator[int]:
    """The port of a server on `cluster`, which its account owns, while the block runs."""
    port = free_port()
    said = cluster.with_suffix(".log")
    with said.open("wb") as log:
        process = Account.for_cluster(cluster).spawn(
            [binaries / "postgres", "-D", cluster, "-c", f"port={port}", "-c", "fsync=off"],
            log,
            log.fileno(),
        )
    try:
        where = f"host=127.0.0.1 port={port}".encode()
        wait_until(
            lambda: process.poll() is not None or pq.PGconn.ping(where) == pq.Ping.OK,
            "the server answers",
        )
        assert process.poll() is None, said.read_text()
        yield port
    finally:
        process.terminate()
        process.wait(30)
