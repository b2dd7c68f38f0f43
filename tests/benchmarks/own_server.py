"""The Postgres that the benchmarks measure."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chatter_db import migrating
from chatter_db.embedded import lease, wait_until_stopped


@contextmanager
def own_server() -> Iterator[tuple[str, Path]]:
    """A migrated server on disk, with durable defaults: its URL, and a directory for all else."""
    directory = Path(tempfile.mkdtemp(prefix="chatter-bench-"))
    # Postgres may run as another user, who has to get in.
    directory.chmod(0o755)
    os.environ["CHATTER_SPOOL_DIR"] = str(directory / "spool")
    try:
        with lease(directory / "data") as server:
            migrating.migrate(server.url)
            yield server.url, directory
    finally:
        wait_until_stopped(directory / "data")
        shutil.rmtree(directory)
