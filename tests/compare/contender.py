"""What the comparison asks of each contender, and how it gets an environment of its own."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, ClassVar, Final

import psycopg
from psycopg import sql

from tests.compare.versions import PACKAGES, version_of
from tests.compare.workload import Sums

ROOT: Final = Path(__file__).parents[2]
STOP_SECONDS: Final = 10.0

Connection = psycopg.Connection[Any]


class NotRun(Exception):
    """A contender couldn't be installed, started or written to; the text says why."""


class Contender(ABC):
    """Something that keeps calls with their usage and cost, on a Postgres database of its own."""

    name: ClassVar[str]
    how: ClassVar[str]
    """In a sentence: how it is run here."""
    driver: ClassVar[str]
    """Its writer in tests/compare/drivers."""
    batch: int = 100
    rounds: ClassVar[int] = 1
    """How often all calls are written; the median counts."""
    fills: ClassVar[bool] = True
    """Whether it is asked its questions with many calls."""
    paced: ClassVar[bool] = True
    """Whether it acknowledges calls one by one, so that a kill in the middle tells something."""
    settles: ClassVar[float] = 0.5
    """Seconds without a new call after which none will come."""
    counted: ClassVar[str]
    """SQL of the calls, tokens and cost of conversations like %(label)s."""
    cost_by_model: ClassVar[str | None] = None
    """SQL of the cost of conversations like %(label)s where its question by model reads other
    rows than `counted` does."""
    questions: ClassVar[dict[str, str]]
    """SQL that answers `conversation`, `model` and `user`: the 20 dearest of each."""

    @property
    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def install(self, cache: Path) -> Path:
        """Its interpreter, in an environment of its own unless it is ours.

        Raises NotRun with the reason if it can't be had.
        """

    @abstractmethod
    def serve(self, url: str, directory: Path, python: Path) -> AbstractContextManager[str]:
        """A context manager: makes its schema, runs its servers, tells where its writer writes."""

    @abstractmethod
    def fill(self, connection: Connection, copies: int) -> None:
        """Copies of all that was written under the label `w`, under ids and names of their own."""

    @abstractmethod
    def agreement(self, connection: Connection) -> str:
        """Whether the totals that it keeps agree with its rows: agree, differ, or none kept."""

    def writer_environment(self, directory: Path) -> dict[str, str]:
        """Of its writer's process: settings that its documentation gives for such a load."""
        return {**os.environ}

    def sums(self, connection: Connection, label: str) -> Sums:
        """What it has of the conversations whose names begin with this label."""
        row = connection.execute(self.counted, {"label": f"{label}-%"}).fetchone()
        assert row is not None
        # As text: floats and decimals alike tell all of their digits.
        return Sums(row[0], int(row[1] or 0), Decimal(str(row[2] or 0)))


class Foreign(Contender):
    """Somebody else's package, installed into a virtualenv of its own."""

    key: ClassVar[str]
    settles = 5.0

    @property
    def version(self) -> str:
        return version_of(self.key)

    def install(self, cache: Path) -> Path:
        place = cache / f"{self.key}-{self.version}"
        python = place / "bin" / "python"
        ready = place / "compare-ready"
        if not ready.exists():
            run_or_not([sys.executable, "-m", "venv", "--clear", str(place)], "venv")
            pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            run_or_not([*pip, *PACKAGES[self.key]], "pip install")
            ready.touch()
        return python


def run_or_not(
    command: Sequence[str], what: str, environment: dict[str, str] | None = None
) -> None:
    """Runs a command; raises NotRun with the last line it said if it fails."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in said if line.lower().startswith("error")]
        word = (errors or said or ["no word"])[-1].strip()
        # Addresses tell of the machine's network, not of the contender.
        word = re.sub(r"https?://\S+|(?<=ENOTFOUND )\S+", "an address", word)
        raise NotRun(f"{what} failed: {word[:300]}")


@contextmanager
def running(
    command: Sequence[str],
    environment: dict[str, str],
    log: Path,
    answers: Callable[[], bool],
    patience: float = 120.0,
) -> Iterator[None]:
    """A server and the processes it starts, from when it answers until the block ends.

    Raises NotRun with the last line of its log if it ends or doesn't answer in time.
    """
    with log.open("w") as written:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=log.parent,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + patience
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                said = [line for line in log.read_text().splitlines() if line.strip()]
                raise NotRun(f"its server does not start: {(said or ['no word'])[-1][:300]}")
            time.sleep(0.2)
        yield
    finally:
        _stop_group(process)


def _stop_group(process: "subprocess.Popen[Any]") -> None:
    """Ends a process and all it has started, which are a group of their own."""
    for signal in (SIGTERM, SIGKILL):
        try:
            os.killpg(process.pid, signal)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
    process.wait()


def answers(url: str) -> bool:
    """Whether somebody answers there, whatever they say."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def replicate(
    connection: Connection, table: str, changed: dict[str, str], copies: int, where: str
) -> None:
    """So many copies of the rows `r` of a table that `where` names.

    `changed` is from column to the SQL expression it has in copy number `k`; the others are
    copied, except those that Postgres computes.
    """
    name = sql.Identifier(*table.split("."))
    columns = [
        row[0]
        for row in connection.execute(
            """
            select attname from pg_catalog.pg_attribute
            where attrelid = %s::regclass and attnum > 0 and not attisdropped
              and attgenerated = '' order by attnum
            """,
            [name.as_string(connection)],
        )
    ]
    connection.execute(
        sql.SQL(
            "insert into {table} ({columns}) select {values} "
            "from {table} as r cross join generate_series(1, {copies}) as k where {where}"
        ).format(
            table=name,
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            values=sql.SQL(", ").join(
                sql.SQL(changed[column])
                if column in changed
                else sql.SQL("r.{}").format(sql.Identifier(column))
                for column in columns
            ),
            copies=sql.Literal(copies),
            where=sql.SQL(where),
        )
    )
