"""Damaged files: every line booked, as an independent reading has it, or none and the reason.

Each file is imported inside of a transaction that is rolled back: rejecting, skipping bad lines,
and once more.
"""

import csv
import io
import json
import re
import tempfile
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, Literal

import psycopg
from hypothesis import strategies as st

from chatter_db.errors import ChatterError, ImportRejected, UsageError
from chatter_db.importing import LinesRejected, import_file
from chatter_db.importing.columns import ALIASES, TARGETS
from tests.fuzz import nonsense
from tests.fuzz.tally import Outcome, Tally, Tell, drive

Sums = tuple[int, Decimal, int, int]
"""Rows, cost, prompt and completion tokens."""

NOTHING: Sums = (0, Decimal(0), 0, 0)

COLUMNS = sorted([*TARGETS, *ALIASES, "note"])
PLAIN = ["conversation", "user", "time", "model", "prompt_tokens", "completion_tokens", "cost"]

good_values: dict[str, st.SearchStrategy[Any]] = {
    "conversation": st.sampled_from(["c-1", "c-2", "é", 7]),
    "user": st.sampled_from(["ada", "bob", ""]),
    "time": st.sampled_from([1_700_000_000, "2026-01-02T03:04:05Z", "2026-01-02 03:04:05.5"]),
    "model": st.sampled_from(["gpt-4o-mini", 'say "hi", it\'s\\n']),
    "prompt_tokens": st.integers(0, 10**6),
    "completion_tokens": st.integers(0, 10**6),
    "cost": st.sampled_from(["0.25", "1e-7", "0", "12.000000000000000001"]),
}


@dataclass(frozen=True)
class Given:
    """A file, and its format."""

    name: Literal["a.jsonl", "a.csv"]
    data: bytes


@st.composite
def jsonl_files(draw: st.DrawFn) -> bytes:
    lines = []
    for _ in range(draw(st.integers(0, 8))):
        row = {name: draw(value) for name, value in good_values.items()}
        if draw(nonsense.once_in(5)):
            for _ in range(draw(st.integers(1, 2))):
                row[draw(st.sampled_from(COLUMNS))] = draw(nonsense.values)
        line = json.dumps(row, default=str, ensure_ascii=draw(st.booleans()))
        if draw(nonsense.once_in(9)):  # a key twice
            line = line[:-1] + ', "cost": 1}'
        lines.append(line.encode(errors="surrogatepass"))
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n", b"\n\n \n"]))


@st.composite
def csv_files(draw: st.DrawFn) -> bytes:
    header = draw(st.permutations(PLAIN))
    if draw(nonsense.once_in(5)):
        header = [*header, draw(st.sampled_from(COLUMNS))]
    written = io.StringIO(newline="")
    end: Any = draw(st.sampled_from(["\n", "\r\n"]))
    table = csv.writer(written, lineterminator=end, quoting=draw(st.sampled_from([0, 1])))
    table.writerow(header)
    for _ in range(draw(st.integers(0, 8))):
        row = [draw(good_values.get(name, nonsense.texts)) for name in header]
        if draw(nonsense.once_in(5)):
            row[draw(st.integers(0, len(row) - 1))] = draw(nonsense.scalars)
        table.writerow(row)
    return written.getvalue().encode(errors="surrogatepass")


@st.composite
def files(draw: st.DrawFn) -> Given:
    name: Literal["a.jsonl", "a.csv"] = draw(st.sampled_from(["a.jsonl", "a.csv"]))
    whole = jsonl_files() if name == "a.jsonl" else csv_files()
    data = draw(st.one_of(whole, nonsense.damaged(whole), nonsense.damaged(whole)))
    encoding = draw(st.sampled_from([None] * 20 + ["utf-16", "latin-1", "utf-8-sig", "cp037"]))
    if encoding is not None:
        data = data.decode(errors="replace").encode(encoding, errors="replace")
    return Given(name, data)


@dataclass
class Campaign:
    """Imports files into one connection's transactions, which are rolled back."""

    connection: psycopg.Connection[Any]
    directory: Path

    def attempt(self, given: Given) -> Outcome:
        path = self.directory / given.name
        path.write_bytes(given.data)
        try:
            with self.connection.transaction(force_rollback=True):
                import_file(self.connection, path)
                self.connection.execute("set constraints all immediate")
                assert self._sums() == sums_of(given, frozenset()), "the books are not the file"
                self._assert_no_change(path)
        except (ImportRejected, UsageError) as error:
            _assert_says_where(error)
            assert self._sums() == NOTHING, "a refused file left something in the books"
            if isinstance(error, LinesRejected):
                with self.connection.transaction(force_rollback=True):
                    self._skip(given, path, error)
            return "refused"
        return "accepted"

    def _skip(self, given: Given, path: Path, refusal: LinesRejected) -> None:
        """The good lines are booked, and they are exactly those that were not named before."""
        try:
            report = import_file(self.connection, path, on_bad_line="skip")
        except ImportRejected as error:  # what only Postgres can tell
            _assert_says_where(error)
            return
        bad = frozenset(line.line for line in report.bad_lines)
        named = frozenset(line.line for line in refusal.report.bad_lines)
        assert bad == named, "skipping finds other lines bad than rejecting"
        assert report.rejected == len(report.bad_lines), "a bad line is not named"
        assert self._sums() == sums_of(given, bad), "the books are not the good lines"
        self._assert_no_change(path)

    def _assert_no_change(self, path: Path) -> None:
        before = self._sums()
        again = import_file(self.connection, path, on_bad_line="skip")
        assert again.booked == 0, "a file is booked twice"
        assert self._sums() == before, "importing again changes the books"

    def _sums(self) -> Sums:
        row = self.connection.execute(
            "select count(*), coalesce(sum(cost), 0), coalesce(sum(prompt_tokens), 0), "
            "coalesce(sum(completion_tokens), 0) from chatter.messages"
        ).fetchone()
        assert row is not None
        totals = self.connection.execute(
            "select coalesce(sum(total_cost), 0), coalesce(sum(prompt_tokens), 0), "
            "coalesce(sum(completion_tokens), 0) from chatter.conversations"
        ).fetchone()
        assert totals == row[1:], "the totals are not the rows"
        return (row[0], row[1], row[2], row[3])


def run(url: str, inputs: int, seed: int, tell: Tell) -> Tally:
    tally = Tally("importer")
    with (
        psycopg.connect(url, autocommit=True) as connection,
        tempfile.TemporaryDirectory(prefix="chatter-fuzz-") as directory,
    ):
        drive(tally, files(), inputs, seed, Campaign(connection, Path(directory)).attempt, tell)
    return tally


def _assert_says_where(error: ChatterError) -> None:
    said = str(error)
    if isinstance(error, LinesRejected):
        assert error.report.bad_lines, "a refusal names no line"
        for line in error.report.bad_lines:
            assert line.line >= 1, "a refusal names no line"
            assert line.reason, "a refusal has no reason"
    elif isinstance(error, ImportRejected):
        assert re.search(r"line \d", said), f"a refusal names no line: {said[:100]}"


def sums_of(given: Given, bad: frozenset[int]) -> Sums:
    """What the file says, read by Python's own JSON and CSV, without the lines that are `bad`."""
    rows = _json_rows(given.data) if given.name == "a.jsonl" else _csv_rows(given.data)
    kept = [row for line, row in rows if line not in bad]
    with localcontext() as context:
        context.prec = 3000  # no digit of a sum may be lost
        cost = sum((_number(row, "cost", "cost_usd") for row in kept), Decimal(0))
    return (
        len(kept),
        cost,
        int(sum(_number(row, "prompt_tokens", "input_tokens") for row in kept)),
        int(sum(_number(row, "completion_tokens", "output_tokens") for row in kept)),
    )


def _number(row: dict[str, Any], *names: str) -> Decimal:
    found = [row[name] for name in names if row.get(name) not in (None, "")]
    return Decimal(str(found[0]).strip()) if found else Decimal(0)


def _json_rows(data: bytes) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line, parse_float=Decimal)
        except (ValueError, RecursionError):
            values = {}  # in `bad`, or the count will tell
        rows.append((number, values if isinstance(values, dict) else {}))
    return rows


def _csv_rows(data: bytes) -> list[tuple[int, dict[str, Any]]]:
    lines = data.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").split("\n")
    table = csv.reader((f"{line}\n" for line in lines), strict=True)
    header: list[str] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    while True:
        first = table.line_num + 1
        try:
            fields = next(table, None)
        except csv.Error:  # in `bad`
            continue
        if fields is None:
            return rows
        if fields and not header:
            header = [name.strip() for name in fields]
        elif fields:
            rows.append((first, dict(zip(header, fields, strict=False))))
