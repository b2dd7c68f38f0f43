"""What an import did, and what stood in its way."""

from dataclasses import dataclass, field
from decimal import Decimal

from chatter_db.errors import ImportRejected

# As many as sql/queries/import_duplicates.sql returns; a report is for reading.
SHOWN_LINES = 20


@dataclass(frozen=True, order=True)
class BadLine:
    """A line that can't be booked. A CSV row of several lines goes by its first."""

    line: int
    field: str | None
    reason: str

    def __str__(self) -> str:
        subject = f"{self.field}: " if self.field else ""
        return f"line {self.line}: {subject}{self.reason}"


@dataclass(frozen=True)
class ImportReport:
    """What an import booked, or would have booked when `dry_run`.

    `rows_read` counts good and bad rows. `rejected` counts the bad ones, of which
    `bad_lines` holds the first. `already_there` are good rows that the books had
    before. Tokens, `cost` (US dollars, exact; None if it is 0 for want of prices) and
    `unpriced_calls` (model calls without a cost) are sums over the booked rows. Of the
    good rows, `without_time` say no time, and so have that of their booking; `in_future`
    have one more than a day ahead; `unread_usage` say no tokens, and have a usage block
    that can't be read for certain.
    `seconds` is wall-clock time. `empty` is a file without a single byte.
    """

    rows_read: int
    booked: int = 0
    already_there: int = 0
    rejected: int = 0
    bad_lines: tuple[BadLine, ...] = ()
    ignored_columns: tuple[str, ...] = ()
    without_time: int = 0
    in_future: int = 0
    unread_usage: int = 0
    unpriced_calls: int = 0
    new_conversations: int = 0
    new_users: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost: Decimal | None = Decimal(0)
    seconds: float = 0.0
    empty: bool = False
    dry_run: bool = False


class LinesRejected(ImportRejected):
    """Some lines of a file can't be booked, so none was; `report` has the facts."""

    def __init__(self, name: str, report: ImportReport) -> None:
        lines = [
            f"{report.rejected:,} of the {report.rows_read:,} rows of {name} can't be booked, "
            "so nothing was:",
            *(f"  {bad}" for bad in report.bad_lines),
        ]
        if report.rejected > len(report.bad_lines):
            lines.append(f"  and {report.rejected - len(report.bad_lines):,} more")
        lines.append("Correct them, or book the others with --skip-bad-lines.")
        super().__init__("\n".join(lines))
        self.report = report


@dataclass
class BadLines:
    """Collects bad lines: counts all, keeps the first."""

    count: int = 0
    first: list[BadLine] = field(default_factory=list)

    def add(self, line: int, column: str | None, reason: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN_LINES:
            self.first.append(BadLine(line, column, reason))
