"""A hot standby: a physical copy of a running server that follows it, and may take its place."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from chatter_db.embedded.account import Account
from chatter_db.embedded.binaries import find_client
from tests.clusters import running
from tests.embedded.conftest import open_directory


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
        with running(cluster, binaries) as port:
            yield f"postgresql://{primary.user}:{primary.password}@127.0.0.1:{port}/chatter"
    finally:
        shutil.rmtree(directory)
