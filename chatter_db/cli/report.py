"""`chatter report`."""

import asyncio
import csv
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from chatter_db.errors import UsageError

if TYPE_CHECKING:
    from chatter_db.analytics import Report, Table


def report(
    name: Annotated[str | None, typer.Argument(help="Which; none: the list of them.")] = None,
    since: Annotated[str | None, typer.Option(help="From here, a local time: 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to here, not included.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Whose days; default UTC.")] = None,
    user: Annotated[
        str | None, typer.Option(help="Of this user: your own id, else chatter.users.id.")
    ] = None,
    step: Annotated[
        Literal["hour", "day"] | None, typer.Option(help="A line for each; default day.")
    ] = None,
    limit: Annotated[str | None, typer.Option(help="How many lines at most, or all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    as_definitions: Annotated[
        bool, typer.Option("--definitions", help="What all figures mean, as Markdown.")
    ] = False,
) -> None:
    """Print a report: the queries of sql/analytics, exact now.

    Not every report has every option; one that it hasn't is wrong use.
    """
    from chatter_db.analytics import reports, run_report, user_id
    from chatter_db.cli.books import migrated_url, open_chatter
    from chatter_db.cli.tables import plain

    if as_json and as_csv:
        raise UsageError("--json or --csv: an answer has one form.")
    if as_definitions:
        with migrated_url() as url:
            _print_definitions(url)
        return
    if name is None:
        _print_list(as_json=as_json, as_csv=as_csv)
        return
    wanted = name.replace("-", "_")
    options = {
        "since": since,
        "until": until,
        "time_zone": time_zone,
        "user_id": user,
        "step": step,
        "limit": limit,
    }
    if chosen := reports().get(wanted):
        _check(chosen, options)

    async def read() -> "Table":
        async with open_chatter(records=False) as chatter, chatter.session() as session:
            whose = None if user is None else str(await user_id(session, user))
            return await run_report(session, wanted, **options | {"user_id": whose})

    table = asyncio.run(read())
    if as_json:
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        told = {"report": wanted, "definition": table.report.title, "as_of": table.as_of}
        typer.echo(json.dumps({**told, "rows": rows}, default=plain))
    elif as_csv:
        _write_csv(table)
    else:
        _print(table)


def _write_csv(found: "Table") -> None:
    """Texts as they are for a file or a program; a terminal would obey what is in them."""
    from chatter_db.cli.tables import harmless, plain

    def cell(value: Any) -> Any:
        if isinstance(value, str):
            return harmless(value) if shown else value
        return None if value is None else plain(value)

    shown = sys.stdout.isatty()
    writer = csv.writer(sys.stdout)
    writer.writerow(found.columns)
    writer.writerows(map(cell, row) for row in found.rows)


def _check(chosen: "Report", options: Mapping[str, str | int | None]) -> None:
    """Raises UsageError for an option that the report doesn't have, and for one that it needs."""
    has = [name for name in options if name in chosen.defaults]
    for name, value in options.items():
        if value is not None and name not in has:
            known = ", ".join(map(_option, has)) or "none"
            raise UsageError(f"{chosen.name} has no {_option(name)}; its options are {known}.")
    if "user_id" in has and options["user_id"] is None:
        raise UsageError(f"{chosen.name} needs --user: your own id of the user.")


def _option(variable: str) -> str:
    return "--user" if variable == "user_id" else f"--{variable.replace('_', '-')}"


def _print_definitions(url: str) -> None:
    from chatter_db.analytics import definitions
    from chatter_db.cli.books import connected

    with connected(url) as connection:
        typer.echo(definitions(connection), nl=False)


def _print_list(*, as_json: bool, as_csv: bool) -> None:
    from chatter_db.analytics import reports
    from chatter_db.cli.tables import show

    rows = [(found.name, found.title) for found in reports().values()]
    if as_json:
        listed = [{"report": name, "definition": title} for name, title in rows]
        typer.echo(json.dumps({"reports": listed}))
    elif as_csv:
        csv.writer(sys.stdout).writerows([("report", "definition"), *rows])
    else:
        show(("report", "what it tells"), rows)


def _print(found: "Table") -> None:
    from chatter_db.cli.tables import console, escaped, show

    out = console()
    out.print(f"[bold]{escaped(found.report.title)}[/] {escaped(found.report.notes)}")
    show(found.columns, found.rows)
    out.print(f"As of {found.as_of:%Y-%m-%d %H:%M:%S} UTC.", highlight=False)
