"""Every command of `chatter`, from its own parser, with hostile arguments and settings.

Most run in this process, which is a real way to run them: `chatter_db.cli.main`. Commands that go
on until they are stopped, or hand over to another program, run as processes that are told to end.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer
from hypothesis import strategies as st

from chatter_db import cli
from chatter_db.settings import Settings, settings
from tests.chaos.members import CHATTER
from tests.fuzz import nonsense
from tests.fuzz.tally import Outcome, Tally, Tell, drive

ENDLESS = {"serve", "worker", "tail", "top", "psql"}
"""Go on until they are told to end, or hand over to psql."""

PROCESSES = 150
"""Of so many inputs one is of an endless command, and another one a process too."""

PROCESS_SECONDS = 10.0
"""How long a process may go on; then it is told to end."""

END_SECONDS = 60.0

BOOKS = "the books"
"""Stands for the URL of the campaign's own database: examples don't depend on its port."""

URLS = [
    BOOKS,
    *("postgresql://", "postgres://u:p@127.0.0.1:1/x", "postgresql://127.0.0.1:99999/x"),
    *("postgresql://127.0.0.1:x/y", "mysql://localhost/x", "nonsense", "postgresql://[::1/x"),
    *("postgresql+asyncpg://127.0.0.1:1/x", "postgresql://u:a@b:c@127.0.0.1:1/x", "://", "é://ü"),
    *("postgresql://127.0.0.1:1/x?sslmode=nonsense", "postgresql://127.0.0.1:1/x?nonsense=1"),
    *("postgresql:///x?host=/nowhere", "postgresql://%zz@127.0.0.1:1/x", "postgresql://u\n@h/x"),
    *("postgresql://127.0.0.1:1,127.0.0.1:2/x", "postgresql://127.0.0.1:1/x?connect_timeout=é"),
]

SETTINGS = {
    "CHATTER_" + name.upper(): [
        "",
        " ",
        "0",
        "-1",
        "1",
        "é",
        "1e9",
        "x" * 300,
        "nan",
        "NaN",
        "true",
    ]
    for name in Settings.model_fields
    if name not in ("database_url", "data_dir", "spool_dir", "model", "postgres_bin")
} | {
    "CHATTER_SPOOL_DIR": [
        "/dev/null/spool",
        "spool",
        "a/b/c",
        "/proc/1/spool",
        "file.txt",
        "x" * 300,
    ],
    "CHATTER_POSTGRES_BIN": ["/nowhere", "file.txt", ".", "\udcff"],
    "CHATTER_MODEL": ["", "offline", "nonsense", "nobody:x", ":", "openai:"],
    "COLUMNS": ["1", "0", "-1", "x", "10000"],
    "LC_ALL": ["C", "de_DE.UTF-8", "nonsense"],
    "NO_COLOR": ["1"],
    "PYTHONIOENCODING": ["ascii"],
}

FILES = {
    "file.txt": b"nonsense",
    "empty.jsonl": b"",
    "good.jsonl": b'{"conversation": "c", "cost": 1}\n',
    "bad.csv": b"conversation,cost\nc,x\n",
    "latin.csv": b"conversation,cost\n\xe9,1\n",
}

words = st.one_of(
    nonsense.texts,
    st.sampled_from(
        [
            *FILES,
            *(".", "..", "/", "/nowhere/x.csv", "/dev/null", "-", "--", "-x", "--nonsense", "="),
            *("a=b", "usd=cost", "cost=cost", "oldest", "today", "2026-01-31", "9999-12-31", "1"),
            *("2026-01-31T08:00+02:00", "0001-01-01T00:00+14:00", "UTC", "Mars/Olympus", "-1"),
            *("cost_by_user", "monthly_bill", "running", "chatter.messages", "public.x", "x.y.z"),
            *("openai", "gpt-4o", "openai:gpt-4o", "nobody:x", "anthropic:claude-3-5-haiku-latest"),
            *("0190c0de-0000-7000-8000-000000000001", "1e400", "NaN", "-0", "1e-2000", "0.5"),
            *("\udcff", "jsonl", "csv", "127.0.0.1", "999.1.1.1", "65536", "http://127.0.0.1:1/v1"),
        ]
    ),
)
"""Some with a byte that is no UTF-8, as a shell passes it on."""


@dataclass(frozen=True)
class Invocation:
    """A command line and the settings it runs under."""

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    process: bool


def commands() -> dict[str, click.Command]:
    """All there are, from the parser."""
    group = typer.main.get_command(cli.app)
    found: dict[str, click.Command] = dict(vars(group)["commands"])
    return found


@st.composite
def invocations(draw: st.DrawFn, known: dict[str, click.Command]) -> Invocation:
    endless = draw(nonsense.once_in(PROCESSES))
    name = draw(st.sampled_from(sorted(ENDLESS if endless else known.keys() - ENDLESS)))
    line = [name]
    for parameter in known[name].params:
        flags = [each for each in parameter.opts if each.startswith("-")]
        if not flags:
            line += [] if draw(nonsense.once_in(10)) else [draw(words)]
        elif draw(nonsense.once_in(4)):
            line.append(draw(st.sampled_from(flags)))
            if not vars(parameter).get("is_flag"):
                line.append(draw(words))
    line += draw(st.lists(words, max_size=1)) if draw(nonsense.once_in(6)) else []
    if not endless and draw(nonsense.once_in(30)):
        line = draw(st.lists(words, max_size=4))
    url = draw(st.sampled_from([BOOKS] * 2 * len(URLS) + URLS))
    environment = {"CHATTER_DATABASE_URL": url}
    if draw(nonsense.once_in(3)):
        for setting in draw(st.lists(st.sampled_from(sorted(SETTINGS)), max_size=2)):
            environment[setting] = draw(st.sampled_from(SETTINGS[setting]))
    process = endless or draw(nonsense.once_in(PROCESSES))
    # NUL can't be passed to a process, and a lone surrogate only as a byte.
    printable = [argument.replace("\0", "").replace("\ud800", "\udcff") for argument in line]
    return Invocation(tuple(printable), tuple(environment.items()), process)


@dataclass
class Campaign:
    """Runs command lines in a directory of their own, on the campaign's books."""

    url: str
    directory: Path

    def attempt(self, invocation: Invocation) -> Outcome:
        for name, data in FILES.items():
            (self.directory / name).write_bytes(data)
        run = self._as_process if invocation.process else self._here
        code, said, complained = run(invocation)
        assert "Traceback" not in complained, (
            f"a traceback: {complained.strip().splitlines()[-1][:200]}"
        )
        assert code in (0, 1, 2), f"exit code {code}"
        assert code == 0 or said.strip() or complained.strip(), f"exit code {code} without a word"
        helped = not invocation.arguments  # the help is an answer
        assert code != 2 or complained.strip() or helped, "wrong use, and nothing on stderr"
        return "accepted" if code == 0 else "refused"

    def _environment(self, invocation: Invocation) -> dict[str, str]:
        """Nobody's home, data or spool but the campaign's."""
        own = {
            "HOME": str(self.directory),
            "CHATTER_DATA_DIR": str(self.directory / "data"),
            "CHATTER_SPOOL_DIR": str(self.directory / "spool"),
            "OPENAI_API_KEY": "none",
            "ANTHROPIC_API_KEY": "none",
        }
        given = dict(invocation.environment)
        if given["CHATTER_DATABASE_URL"] == BOOKS:
            given["CHATTER_DATABASE_URL"] = self.url
        return own | given

    def _here(self, invocation: Invocation) -> tuple[object, str, str]:
        """Runs the command in this process; what is raised past `main` would be a traceback."""
        said, complained = io.BytesIO(), io.BytesIO()
        out = io.TextIOWrapper(said, "utf-8")
        err = io.TextIOWrapper(complained, "utf-8", "backslashreplace")
        code: object = 0
        with pytest.MonkeyPatch.context() as patched, contextlib.chdir(self.directory):
            for name, value in self._environment(invocation).items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", ["chatter", *invocation.arguments])
            patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
            settings.cache_clear()
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    cli.main()
            except SystemExit as end:
                code = end.code
            finally:
                settings.cache_clear()
                out.flush()
                err.flush()
        return code, said.getvalue().decode(), complained.getvalue().decode()

    def _as_process(self, invocation: Invocation) -> tuple[object, str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHATTER_", "PG"))}
        process = subprocess.Popen(
            [CHATTER, *map(os.fsencode, invocation.arguments)],
            env=kept | self._environment(invocation),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        told_to_end = False
        try:
            out, err = process.communicate(timeout=PROCESS_SECONDS)
        except subprocess.TimeoutExpired:
            told_to_end = True
            process.terminate()
            try:
                out, err = process.communicate(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise
        code: object = process.returncode
        if told_to_end and code == -signal.SIGTERM:
            code = 0
        return code, out.decode(errors="replace"), err.decode(errors="replace")


def run(url: str, inputs: int, seed: int, tell: Tell) -> Tally:
    tally = Tally("cli")
    with tempfile.TemporaryDirectory(prefix="chatter-fuzz-") as directory:
        campaign = Campaign(url, Path(directory))
        drive(tally, invocations(commands()), inputs, seed, campaign.attempt, tell)
    return tally
