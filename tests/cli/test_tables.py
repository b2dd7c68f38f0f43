"""Tables of the command: whole in a pipe, and on a terminal as far as there is room."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from chatter_db.analytics import Table, reports
from chatter_db.cli.report import _write_csv
from chatter_db.cli.tables import fitted
from chatter_db.cli.tail import _print
from chatter_db.events import Event
from tests.conftest import ONE_SERVER
from tests.forked import Run

COLUMNS = ("id", "title", "user", "total_tokens", "cost", "last_message_at")
ROW = (
    UUID("0190c0de-0000-7000-8000-000000000001"),
    "Where is my parcel, and may I return it?",
    "ada@example.com",
    1234567,
    Decimal("12345.678901"),
    datetime(2026, 1, 31, 8, 59),
)
FIGURES = ["1,234,567", "12,345.678901", "2026-01-31 08:59"]


def printed(width: int, row: tuple[Any, ...] = ROW) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(fitted(COLUMNS, [row, row], width))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def rows_of(lines: list[str]) -> int:
    return sum("12,345.678901" in line for line in lines)


@pytest.mark.parametrize("width", [40, 79, 80, 90, 100, 140, 200])
def test_nothing_is_cut(width: int) -> None:
    lines = printed(width)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for figure in FIGURES:
        assert text.count(figure) == 2, figure
    # Ids and texts may fold: each letter is there.
    for whole in (str(ROW[0]), "parcel"):
        letters = re.sub(r"[^a-z0-9]", "", whole)
        assert all(text.count(letter) >= 2 * letters.count(letter) for letter in set(letters))


def test_with_room_a_row_is_a_line() -> None:
    heading, first, second = printed(200)
    assert "total tokens" in heading
    assert first == second
    assert all(value in first for value in (str(ROW[0]), str(ROW[1]), *FIGURES))


def test_with_less_room_headings_take_several_lines_and_texts_fold() -> None:
    """Long texts fold first, then headings, and ids last."""
    narrower = [printed(width) for width in (140, 110, 90)]
    assert [rows_of(lines) for lines in narrower] == [2, 2, 2]
    told = ["\n".join(lines) for lines in narrower]
    assert [str(ROW[1]) in text for text in told] == [False, False, False]
    assert ["total tokens" in text for text in told] == [True, False, False]
    assert [str(ROW[0]) in text for text in told] == [True, True, False]


def test_without_room_each_value_has_a_line() -> None:
    lines = printed(40)
    assert [line.split()[-1] for line in lines if line.startswith("cost ")] == ["12,345.678901"] * 2
    assert sum(line.startswith("last message at ") for line in lines) == 2


def test_a_small_cost_is_not_shown_as_0() -> None:
    out = Console(file=io.StringIO(), width=80)
    costs = ("0", "0E-12", "0.5", "0.0000005", "0.00000012300", "-0.0000000001")
    out.print(fitted(["cost"], [(Decimal(cost),) for cost in costs], 80))
    assert isinstance(out.file, io.StringIO)
    shown = out.file.getvalue().split()[1:]
    assert shown == ["0.0", "0.0", "0.5", "0.0000005", "0.000000123", "-0.0000000001"]


def test_the_figures_of_a_column_stand_one_below_another() -> None:
    """Else 0.00023 looks like less than 0.000173."""
    out = Console(file=io.StringIO(), width=80)
    rows = [("0.00023", "12.5"), ("0.000173", "1206.1"), (None, "3")]
    figures = [tuple(None if one is None else Decimal(one) for one in row) for row in rows]
    out.print(fitted(["cost", "ms"], figures, 80))
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().splitlines()[1:] == [
        "0.000230     12.5",
        "0.000173  1,206.1",
        "              3.0",
    ]


@ONE_SERVER
def test_a_pipe_has_no_edge(chatter_command: Run, url: str, db: psycopg.Connection[Any]) -> None:
    (conversation,) = booked(db)
    for command in (["report", "dearest_conversations"], ["top", "--once"], ["status"]):
        done = chatter_command(*command, url=url, COLUMNS="30")
        assert done.returncode == 0, done.stderr
        assert "…" not in done.stdout
        if command[0] == "report":
            (row,) = (line for line in done.stdout.splitlines() if str(conversation) in line)
            assert "12,345.678901" in row


@ONE_SERVER
def test_a_terminal_has_one(url: str, db: psycopg.Connection[Any], tmp_path: Path) -> None:
    booked(db)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
    environment |= {"CHATTER_DATABASE_URL": url, "TERM": "dumb"}
    command = [sys.executable, "-c", "from chatter_db.cli import main; main()"]
    with subprocess.Popen(
        [*command, "report", "dearest_conversations"], stdout=theirs, env=environment, cwd=tmp_path
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the terminal of a process that has ended
                break
        os.close(ours)
    assert process.returncode == 0
    lines = shown.decode().splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert "12,345.678901" in shown.decode() and "…" not in shown.decode()


def booked(db: psycopg.Connection[Any]) -> tuple[UUID]:
    """A conversation with a dear call."""
    row = db.execute(
        "insert into chatter.conversations (external_id) values ('a-long-name-of-a-conversation') "
        "returning id"
    ).fetchone()
    assert row is not None
    db.execute(
        "insert into chatter.messages (conversation_id, role, model_used, cost) "
        "values (%s, 'assistant', 'gpt-4o-mini', 12345.678901)",
        row,
    )
    return (row[0],)


def test_a_terminal_obeys_nothing_that_was_written_by_a_user() -> None:
    hostile = "\x1b]0;owned\x1b\\\x1b[31m\x9b2J[bold]"
    for value in (hostile, Text(hostile, "red")):
        out = Console(file=io.StringIO(), width=200)
        out.print(fitted(("title",), [(value,)], 200))
        assert isinstance(out.file, io.StringIO)
        assert out.file.getvalue().splitlines()[1].strip() == (
            r"\x1b]0;owned\x1b\\x1b[31m\x9b2J[bold]"
        )


@pytest.mark.parametrize("terminal", [True, False])
def test_csv_is_exact_but_for_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    row = ("=1+1", "\x1b[2J\x9b2J", Decimal("-12.50"), -3, None)
    report = reports()["cost_by_user"]
    _write_csv(Table(report, ROW[-1], ("a", "b", "c", "d", "e"), [row]))
    written = r"\x1b[2J\x9b2J" if terminal else "\x1b[2J\x9b2J"
    assert capsys.readouterr().out.split("\n")[1].strip("\r") == f"=1+1,{written},-12.50,-3,"


def test_an_event_is_a_line_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    payload = {"v": 1, "model": "\x1b[2Jm\n03:12:07.481920  workflow_failed"}
    nowhere = dict.fromkeys(("user_id", "conversation_id", "execution_id", "correlation_id"))
    told = {"position": "", "id": 1, "event_type": "model_response", "category": "conversation"}
    _print(msgspec.convert({**told, **nowhere, "payload": payload, "created_at": ROW[-1]}, Event))
    assert capsys.readouterr().out.endswith(
        r"model=\x1b[2Jm\n03:12:07.481920  workflow_failed" "\n"
    )
