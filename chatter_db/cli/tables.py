"""Tables on stdout, of which nothing is cut.

On a terminal a table fits into its width: long texts fold first, then headings take several
lines, then ids fold, too; figures and dates never do. One that can't fit is told as records,
a value a line. In a pipe or a file a line is as long as it needs to be.
"""

import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

NO_EDGE = 1_000_000
"""How wide a pipe is."""

MIN_TEXT = 10
"""How narrow a text may become before the table is told as records."""

_LAYOUTS = ((" ", True), ("\n", True), ("\n", False))
"""What is between the words of a heading, and whether a text of one word, an id, stays whole."""

_GAP = 2

_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))
}


def console(*, highlight: bool = True) -> Console:
    """stdout: lines end at the edge of a terminal, and nowhere where there is none."""
    return Console(width=None if sys.stdout.isatty() else NO_EDGE, highlight=highlight)


def show(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, figures: Collection[str] = ()
) -> None:
    """Prints a table; see `fitted`."""
    out = console()
    out.print(fitted(columns, rows, out.width, figures=figures))


def counted(title: str, counts: Iterable[tuple[str, int | Decimal | str]]) -> Table:
    """What came of a command, a count a line."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for subject, number in counts:
        match number:
            case str():
                table.add_row(subject, number)
            case Decimal():
                table.add_row(subject, f"{number:,f}")
            case _:
                table.add_row(subject, f"{number:,}")
    return table


def plain(value: Any) -> str:
    """What JSON has no form for, as text: a Decimal without an exponent, as psql shows it."""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def amount(number: int, what: str) -> str:
    """So many of them: 1 call, 2 calls."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def six_decimals(value: Decimal) -> str:
    """And of what would read as 0 with these, all there are."""
    return f"{value.normalize():f}" if value and not round(value, 6) else f"{value:,.6f}"


def harmless(text: str) -> str:
    """What a user or a model wrote, without what a terminal would obey: \\x1b for Escape."""
    return text.translate(_CONTROLS)


def escaped(text: str) -> str:
    """The same among rich's markup, of which none is in it."""
    return escape(harmless(text))


def fitted(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    width: int,
    *,
    figures: Collection[str] = (),
) -> RenderableType:
    """A table that is no wider than `width`. Numbers, and columns in `figures`, are to the right.

    A value may be a rich Text, of any style.
    """
    decimals = [_decimals(row[place] for row in rows) for place in range(len(columns))]
    cells = [[_text(*cell) for cell in zip(row, decimals, strict=True)] for row in rows]
    to_the_right = {
        place
        for place, column in enumerate(columns)
        if column in figures or _all(rows, place, int | float | Decimal)
    }
    fixed = to_the_right | {
        place for place in range(len(columns)) if _all(rows, place, date | datetime)
    }
    texts = {place for place in range(len(columns)) if any(" " in str(row[place]) for row in cells)}
    for separator, whole in _LAYOUTS:
        headings = [column.replace("_", separator).replace(" ", separator) for column in columns]
        table = Table(box=None, pad_edge=False, header_style="bold")
        needed = _GAP * (len(columns) - 1)
        for place, heading in enumerate(headings):
            longest = max(_widths([heading, *(str(row[place]) for row in cells)]))
            stays = place in fixed or (whole and place not in texts)
            narrowest = longest if stays else min(longest, MIN_TEXT)
            needed += narrowest
            table.add_column(
                heading,
                justify="right" if place in to_the_right else "left",
                no_wrap=stays,
                overflow="fold",
                min_width=narrowest,
            )
        if needed <= width:
            for row in cells:
                table.add_row(*row)
            return table
    return Group(*(_record(columns, row) for row in cells))


def _record(columns: Sequence[str], cells: Sequence[Text]) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for column, cell in zip(columns, cells, strict=True):
        table.add_row(column.replace("_", " "), cell)
    return Group(table, "")


def _all(rows: Sequence[Sequence[Any]], place: int, kinds: Any) -> bool:
    return all(isinstance(row[place], kinds | None) for row in rows)


def _widths(texts: Iterable[str]) -> list[int]:
    """How wide each line of `texts` is."""
    return [cell_len(line) for text in texts for line in text.split("\n")]


def _decimals(values: Iterable[Any]) -> int:
    """How many the column has, so that its figures stand one below another; six at most."""
    shown = [_figure(value) for value in values if isinstance(value, Decimal)]
    return max((n for one in shown if (n := len(one.partition(".")[2])) <= 6), default=0)


def _figure(value: Decimal, decimals: int = 0) -> str:
    whole, _, rest = six_decimals(value).rstrip("0").partition(".")
    return f"{whole}.{rest:0<{decimals}}" if rest or decimals else whole


def _text(value: Any, decimals: int) -> Text:
    match value:
        case Text():
            return Text(harmless(value.plain), value.style)
        case None:
            return Text()
        case int():
            return Text(f"{value:,}")
        case Decimal():
            return Text(_figure(value, decimals))
        case datetime():
            return Text(f"{value:%Y-%m-%d %H:%M}")
        case _:
            return Text(harmless(str(value)))
