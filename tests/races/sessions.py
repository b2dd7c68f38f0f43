"""Connections that run statements in threads of their own, and the wait for one to be blocked."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from tests.sql.books import Books

SECONDS = 30.0

Result = TypeVar("Result")


class Session(Books):
    """The books over one connection of its own thread, in transactions that the test ends."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        super().__init__(connection)
        self._pool = ThreadPoolExecutor(1)

    def start(
        self, operation: Callable[..., Result], *args: object, **named: object
    ) -> Future[Result]:
        """Begins an operation of this session and returns at once."""
        return self._pool.submit(operation, *args, **named)

    def blocked(
        self, operation: Callable[..., Result], *args: object, **named: object
    ) -> Future[Result]:
        """Begins an operation and returns when it waits for a lock of another session."""
        future = self.start(operation, *args, **named)
        self.wait_until_blocked(future)
        return future

    def wait_until_blocked(self, future: Future[Result]) -> None:
        info = self.connection.info
        deadline = time.monotonic() + SECONDS
        with psycopg.connect(info.dsn, password=info.password, autocommit=True) as observer:
            while True:
                row = observer.execute(
                    "select pg_blocking_pids(%s) <> '{}'", [info.backend_pid]
                ).fetchone()
                if row == (True,):
                    return
                if future.done():
                    raise AssertionError(f"it did not wait for anybody: {future}")
                assert time.monotonic() < deadline, "it neither waits nor ends"

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()

    def close(self) -> None:
        # Ends the statement of a test that failed in mid-race, or its thread would never end.
        self.connection.cancel_safe()
        self._pool.shutdown()
        self.connection.close()


@contextmanager
def sessions(url: str, number: int) -> Iterator[tuple[Session, ...]]:
    """`number` sessions; statements of theirs that hang fail after a while."""
    with ExitStack() as stack:
        opened = []
        for _ in range(number):
            connection = psycopg.connect(url, options=f"-c statement_timeout={int(SECONDS)}s")
            session = Session(connection)
            stack.callback(session.close)
            opened.append(session)
        yield tuple(opened)


def outcome(future: Future[Any]) -> Any:
    """The result of an operation, or the SQLSTATE of its failure."""
    try:
        return future.result(SECONDS)
    except errors.Error as error:
        return error.sqlstate or type(error).__name__
