"""The comparison as a table, for people and for README.md."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.compare.measuring import Row, Scale

BEGIN, END = "<!-- compare -->", "<!-- /compare -->"
QUESTIONS = ("conversation", "model", "user")
DASH = "–"  # noqa: RUF001 - the sign for nothing in a table


def columns(scale: Scale) -> list[str]:
    return [
        "",
        "calls/s",
        "of the limit",
        f"bytes a call, {scale.calls:,}; {scale.filled:,}",
        "dearest conversations; models; users, ms",
        "kill -9: acknowledged; there",
        "totals then",
        "delivered twice",
        "agent repeats usage",
        "total cost",
    ]


def lines(rows: list[Row]) -> Iterator[list[str]]:
    """The cells of the contenders that were run."""
    limit = rows[0].calls_per_second if rows and not rows[0].version else None
    for row in rows:
        if row.reason is not None or row.calls_per_second is None:
            continue
        share = row.calls_per_second / limit if limit else None
        yield [
            f"{row.contender} {row.version}".strip(),
            f"{row.calls_per_second:,.0f}",
            DASH if share is None else f"{share:.2f}" if share >= 0.01 else f"{share:.4f}",
            "; ".join(
                DASH if size is None else f"{size:,.0f}"
                for size in (row.bytes_per_call, row.bytes_per_call_filled)
            ),
            "; ".join(f"{row.milliseconds[q]:,.1f}" for q in QUESTIONS)
            if row.milliseconds
            else DASH,
            DASH if row.acknowledged is None else f"{row.acknowledged:,}; {row.present:,}",
            row.totals or DASH,
            row.delivered_twice or DASH,
            row.agent_repeats or DASH,
            exactness(row),
        ]


def exactness(row: Row) -> str:
    if row.cost_error is None:
        return DASH
    told = "exact" if row.cost_error == 0 else f"off by ${abs(row.cost_error):.1g}"
    if row.cost_error != 0 and abs(row.cost_error) < Decimal("0.000001"):
        told += ", floats"
    return told + (f", {row.token_error:+,} tokens" if row.token_error else "")


def show(console: Console, rows: list[Row], scale: Scale) -> None:
    table = Table(title=f"The same {scale.calls:,} model calls")
    for place, column in enumerate(columns(scale)):
        table.add_column(column, justify="left" if place == 0 else "right")
    for cells in lines(rows):
        table.add_row(*cells)
    console.print(table)
    for row in rows:
        if row.reason is not None:
            console.print(f"{row.contender} {row.version}: not run: {row.reason}", markup=False)


def markdown(rows: list[Row], scale: Scale) -> str:
    header = columns(scale)
    made = [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(cells)} |" for cells in lines(rows)),
        "",
        *(f"- {row.contender}: {row.how}" for row in rows if row.reason is None),
        *(
            f"- {row.contender} {row.version}: not run: {row.reason}"
            for row in rows
            if row.reason is not None
        ),
    ]
    return "\n".join(made)


def write_readme(path: Path, rows: list[Row], scale: Scale) -> None:
    """Replaces what stands between the two marks, which must be there."""
    text = path.read_text()
    block = f"{BEGIN}\n{markdown(rows, scale)}\n{END}"
    changed, found = re.subn(f"{BEGIN}.*?{END}", lambda _: block, text, count=1, flags=re.DOTALL)
    if not found:
        raise SystemExit(f"{path} has no {BEGIN} ... {END} to write between.")
    path.write_text(changed)
