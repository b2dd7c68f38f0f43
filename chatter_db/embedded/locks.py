"""File locks (flock) between processes.

The kernel frees a lock when its last file descriptor closes, also after
kill -9. Two descriptors of one process exclude each other like two processes
do, so threads need nothing more.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

POLL_SECONDS = 0.01


def open_lock(path: Path) -> int:
    """Open a lock file, made if need be, and return its descriptor, not yet locked."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def share(lock: int) -> None:
    """Wait for the lock, shared."""
    fcntl.flock(lock, fcntl.LOCK_SH)


def take(lock: int) -> None:
    """Wait for the lock, exclusively."""
    fcntl.flock(lock, fcntl.LOCK_EX)


def try_take(lock: int) -> bool:
    """Take the lock exclusively, or return False if somebody holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free(lock: int) -> None:
    """Give the lock up and keep the file open."""
    fcntl.flock(lock, fcntl.LOCK_UN)


@contextmanager
def taken(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock exclusively; raises TimeoutError after `timeout` seconds."""
    lock = open_lock(path)
    try:
        deadline = time.monotonic() + timeout
        while not try_take(lock):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            # Not by closing alone: a child forked meanwhile may still have the file open.
            free(lock)
    finally:
        os.close(lock)


def is_taken(path: Path) -> bool:
    """Whether a process holds the lock exclusively."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
