"""Installed commands as processes of their own, without the seconds each takes to import.

They are forked from a process that has loaded the libraries, and of ours the ledger: most of what
a test of a command would take is the import of SQLAlchemy, Alembic, LangGraph and FastAPI, and
half of the rest that of the models and the recorder.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import entry_points
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

PRELOADED = [
    "typer",
    "rich.table",
    "rich.progress",
    "pydantic_settings",
    "alembic.command",
    "alembic.config",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "psycopg",
    "asyncpg",
    "langchain.chat_models",
    "langgraph.graph",
    "langgraph.prebuilt",
    "genai_prices",
    "fastapi",
    "uvicorn",
    "argon2",
    "prometheus_client",
    "chatter_db.ledger",
]

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(PRELOADED)

# What the fixture `chatter_command` is.
Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Forked:
    """A running command, and the ends of its pipes that are to be read."""

    process: ForkServerProcess
    stdout: Connection
    stderr: Connection


def start(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> Forked:
    """`command` with exactly that environment, in `directory`; the first word is its name."""
    stdout, to_stdout = _forking.Pipe(duplex=False)
    stderr, to_stderr = _forking.Pipe(duplex=False)
    process = _forking.Process(
        target=_become, args=(command, dict(environment), directory, to_stdout, to_stderr)
    )
    process.start()
    to_stdout.close()
    to_stderr.close()
    return Forked(process, stdout, stderr)


def run(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """`command` to its end. Raises subprocess.TimeoutExpired."""
    forked = start(command, environment, directory)
    with ThreadPoolExecutor(2) as pool:
        said = [pool.submit(all_of, pipe) for pipe in (forked.stdout, forked.stderr)]
        forked.process.join(timeout)
        code = forked.process.exitcode
        if code is None:
            forked.process.kill()
            forked.process.join()
    stdout, stderr = (each.result() for each in said)
    forked.process.close()
    if code is None:
        raise subprocess.TimeoutExpired(command, timeout, stdout, stderr)
    return subprocess.CompletedProcess(command, code, stdout, stderr)


def all_of(pipe: Connection) -> str:
    """What is said into it until its end."""
    with pipe, open(pipe.fileno(), closefd=False, encoding="utf-8") as text:
        return text.read()


def _become(
    command: Sequence[str],
    environment: dict[str, str],
    directory: Path,
    stdout: Connection,
    stderr: Connection,
) -> None:
    """In the new process: what the script does that pip installs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    for pipe, number in ((stdout, 1), (stderr, 2)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout.reconfigure(line_buffering="PYTHONUNBUFFERED" in environment)  # type: ignore[union-attr]
    sys.argv = list(command)
    (script,) = entry_points(group="console_scripts", name=command[0])
    sys.exit(script.load()())
