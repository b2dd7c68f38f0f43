"""The process that starts Postgres and stops it when nobody holds a lease any more.

Run as `python run_supervisor.py DATA_DIR BIN_DIR [NAME=VALUE ...]` by `lease`, which holds
the start lock meanwhile. It returns at once; a forked child goes on in a session of its own
and ends when Postgres ends.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from chatter_db.embedded import locks
from chatter_db.embedded.account import Account
from chatter_db.embedded.data_dir import DataDir

HOST = "127.0.0.1"
PORT_ATTEMPTS = 5
FAST_STOP_SECONDS = 60.0
HARD_STOP_SECONDS = 10.0


def main(argv: Sequence[str]) -> None:
    """Take the supervisor's lock and go on in the background; return if there is another one."""
    data, bin_dir, settings = DataDir(Path(argv[0])), Path(argv[1]), argv[2:]
    # The descriptor stays open, and so the lock held, to the end of the child.
    if locks.try_take(locks.open_lock(data.supervisor_lock)) and os.fork() == 0:
        os.chdir("/")
        _supervise(data, bin_dir, settings)


def _supervise(data: DataDir, bin_dir: Path, settings: Sequence[str]) -> None:
    # Opened now: they have to work even if the directory is removed under us.
    leases, start_lock, watched = map(
        locks.open_lock, (data.leases, data.start_lock, data.server_lock)
    )
    pid = start_postgres(data, bin_dir, settings)
    if pid is None:
        return
    threading.Thread(target=_end_with_postgres, args=[watched], daemon=True).start()
    _wait_for_last_lease(leases, start_lock)
    _stop(pid)


def start_postgres(data: DataDir, bin_dir: Path, settings: Sequence[str]) -> int | None:
    """Start Postgres, or find it running; return its pid, or None if it does not start.

    Tries another port if somebody took the chosen one in the meantime.
    """
    server_lock = locks.open_lock(data.server_lock)
    try:
        if not locks.try_take(server_lock):
            postmaster = data.postmaster()
            return postmaster.pid if postmaster else None
        for _ in range(PORT_ATTEMPTS):
            port = _free_port()
            _remove_stale_pid_file(data)
            pid = _start_on_port(data, bin_dir, settings, port, server_lock)
            if pid is not None or not _is_answered(port):
                return pid
        return None
    finally:
        os.close(server_lock)


def _start_on_port(
    data: DataDir, bin_dir: Path, settings: Sequence[str], port: int, server_lock: int
) -> int | None:
    fixed = [
        f"listen_addresses={HOST}",
        f"port={port}",
        "unix_socket_directories=",
        "logging_collector=off",
    ]
    command: list[str | Path] = [bin_dir / "postgres", "-D", data.cluster]
    for setting in ["timezone=UTC", "log_timezone=UTC", *settings, *fixed]:
        command += ["-c", setting]
    with data.open_log() as log:
        process = Account.for_cluster(data.cluster).spawn(command, log, inherit=server_lock)
    while process.poll() is None:
        postmaster = data.postmaster()
        if postmaster is not None and postmaster.pid == process.pid and postmaster.ready:
            return process.pid
        time.sleep(locks.POLL_SECONDS)
    return None


def _remove_stale_pid_file(data: DataDir) -> None:
    """Remove a postmaster.pid left by a crash.

    Postgres would do so itself, except if its old pid now belongs to another process. The
    server lock says that no server of ours runs; one started by hand would answer.
    """
    postmaster = data.postmaster()
    if postmaster is None or not _is_answered(postmaster.port):
        (data.cluster / "postmaster.pid").unlink(missing_ok=True)


def _end_with_postgres(server_lock: int) -> None:
    """End this process when the last process of Postgres has ended, for whatever reason."""
    locks.take(server_lock)
    os._exit(0)


def _wait_for_last_lease(leases: int, start_lock: int) -> None:
    """Wait until nobody holds a lease; returns with the start lock held, so nobody gets one."""
    while True:
        locks.take(leases)
        # In the order in which leases are given, start lock first, or both sides would wait.
        locks.free(leases)
        locks.take(start_lock)
        if locks.try_take(leases):
            return
        locks.free(start_lock)


def _stop(pid: int) -> None:
    """Stop Postgres; this process ends meanwhile, with it."""
    for how, seconds in (
        (signal.SIGINT, FAST_STOP_SECONDS),
        (signal.SIGQUIT, HARD_STOP_SECONDS),
    ):
        with suppress(ProcessLookupError):
            os.kill(pid, how)
        time.sleep(seconds)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_answered(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
