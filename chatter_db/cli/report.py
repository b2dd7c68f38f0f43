"""`chatter report`."""

import asyncio
import csv
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from chatter_db.analytics import Table


def report(
    name: Annotated[str | None, typer.Argument(help="Which; none: the list of them.")] = None,
    since: Annotated[str | None, typer.Option(help="From here, a local time: 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to here, not included.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Whose days; default UTC.")] = None,
    limit: Annotated[int | None, typer.Option(help="How many lines at most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    as_definitions: Annotated[
        bool, typer.Option("--definitions", help="What all figures mean, as Markdown.")
    ] = False,
) -> None:
    """Print a report: the queries of sql/analytics, exact now."""
    from chatter_db.analytics import run_report
    from chatter_db.cli.books import migrated_url
    from chatter_db.ledger import Chatter

    if as_definitions:
        with migrated_url() as url:
            _print_definitions(url)
        return
    if name is None:
        _print_list()
        return
    wanted = name.replace("-", "_")

    async def read(url: str) -> "Table":
        async with Chatter.connect(url) as chatter, chatter.session() as session:
            return await run_report(
                session, wanted, since=since, until=until, time_zone=time_zone, limit=limit
            )

    with migrated_url() as url:
        table = asyncio.run(read(url))
    if as_json:
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        told = {"report": wanted, "definition": table.report.title, "as_of": table.as_of}
        typer.echo(json.dumps({**told, "rows": rows}, default=str))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(table.columns)
        writer.writerows(table.rows)
    else:
        _print(table)


def _print_definitions(url: str) -> None:
    from chatter_db.analytics import definitions
    from chatter_db.cli.books import connected

    with connected(url) as connection:
        typer.echo(definitions(connection), nl=False)


def _print_list() -> None:
    from rich.console import Console
    from rich.table import Table

    from chatter_db.analytics import reports

    table = Table("report", "what it tells", box=None, pad_edge=False, header_style="bold")
    for found in reports().values():
        table.add_row(found.name, found.title)
    Console().print(table)


def _print(found: "Table") -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    console.print(f"[bold]{escape(found.report.title)}[/] {escape(found.report.notes)}")
    console.print(as_rich_table(found.columns, found.rows))
    console.print(f"As of {found.as_of:%Y-%m-%d %H:%M:%S} UTC.", highlight=False)


def as_rich_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """Rows for the terminal: numbers to the right."""
    from decimal import Decimal

    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        numbers = all(isinstance(row[place], int | float | Decimal | None) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(escape(_shown(value)) for value in row))
    return table


def _shown(value: Any) -> str:
    from datetime import datetime
    from decimal import Decimal

    match value:
        case None:
            return ""
        case int():
            return f"{value:,}"
        case Decimal():
            return f"{value:,.6f}".rstrip("0").rstrip(".")
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case _:
            return str(value)
