"""The embedded Postgres under fire: at one place, durable, started again after every crash."""

import asyncio
import os
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg

from chatter_db.embedded import lease, wait_until_stopped
from chatter_db.embedded.data_dir import DataDir
from tests.chaos.proxy import Proxy
from tests.embedded.processes import IS_ROOT, is_alive
from tests.polling import wait_until

DISK = "1g"
ANSWER_SECONDS = 90.0

# As durable as by default. A disk of our own has to be small to be filled.
SETTINGS = {"max_wal_size": "128MB", "min_wal_size": "32MB"}

Connection = psycopg.AsyncConnection[tuple[object, ...]]


class Postgres:
    """A server in `base`, where there is a small disk of its own if we may mount one."""

    def __init__(self, base: Path, binaries: Path | None, proxy: Proxy) -> None:
        self._binaries = binaries
        self._proxy = proxy
        self._lease = ExitStack()
        self.disk = base / "disk"
        self.disk.mkdir(mode=0o755)
        self.no_disk = "" if IS_ROOT else "only root may mount a disk"
        if IS_ROOT:
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "chatter-chaos", self.disk],
                capture_output=True,
                text=True,
                check=False,
            )
            self.no_disk = mounted.stderr.strip()
        self._data = self.disk / "data"
        self.password = ""
        self.version = ""
        self.under_fault = False
        """Whether a fault is happening, so that it may be down."""

    @property
    def url(self) -> str:
        """The way to it that no fault is on."""
        return f"postgresql://chatter:{self.password}@127.0.0.1:{self._proxy.target}/chatter"

    @property
    def clients_url(self) -> str:
        """The way through the proxy, which stays the same."""
        return f"postgresql://chatter:{self.password}@127.0.0.1:{self._proxy.port}/chatter"

    @property
    def is_up(self) -> bool:
        postmaster = DataDir(self._data).postmaster()
        return postmaster is not None and is_alive(postmaster.pid)

    async def start(self) -> None:
        """Leases it, as any process does; the lease of a server that crashed is let go."""
        self._proxy.target = None
        self._lease.close()
        server = await asyncio.to_thread(
            self._lease.enter_context, lease(self._data, self._binaries, SETTINGS)
        )
        self.password, self.version = server.password, server.version
        self._proxy.target = server.port

    async def connect(self, *, autocommit: bool = False) -> Connection:
        """A connection past the proxy."""
        return await psycopg.AsyncConnection.connect(
            self.url, autocommit=autocommit, application_name="chaos", connect_timeout=10
        )

    def kill(self) -> None:
        """kill -9 of the postmaster; its children follow when they notice."""
        postmaster = DataDir(self._data).postmaster()
        assert postmaster is not None
        os.kill(postmaster.pid, signal.SIGKILL)

    async def ensure(self) -> None:
        """Waits until it answers, and starts it where it is gone."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            if not self.is_up:
                await self.start()
            try:
                async with await self.connect(autocommit=True) as connection:
                    await connection.execute("select 1")
                    return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(
                        f"Postgres did not answer within {ANSWER_SECONDS:g} s"
                    ) from error
            await asyncio.sleep(0.05)

    def end(self) -> None:
        """Stops it and takes its disk away."""
        self._lease.close()
        wait_until_stopped(self._data, 70)
        # Its supervisor ends with it, and may still hold its log open.
        wait_until(lambda: self.no_disk != "" or self._unmounted(), "the disk is let go")

    def _unmounted(self) -> bool:
        ran = subprocess.run(["umount", self.disk], capture_output=True, check=False)
        return ran.returncode == 0
