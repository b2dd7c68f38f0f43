"""`chatter check`."""

import json
from typing import Annotated, Any

import typer

MAX_ROWS_SHOWN = 20


def check(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Check the books' invariants: totals equal their rows, and the rest of sql/checks.

    Prints what differs and how to mend it. Exit code 1 if anything does.
    """

    from chatter_db.cli.books import connected, migrated_url
    from chatter_db.cli.tables import plain
    from chatter_db.queries import checks

    with migrated_url() as url, connected(url) as connection:
        # One snapshot for all checks: beside busy writers, too, each must hold.
        connection.execution_options(isolation_level="REPEATABLE READ")
        found = {c: _rows(connection, c.statement) for c in checks()}

    if as_json:
        typer.echo(json.dumps({c.name: rows for c, rows in found.items()}, default=plain))
    else:
        for c, rows in found.items():
            _report(c.title, c.mend, rows)
    if any(found.values()):
        raise typer.Exit(1)


def _rows(connection: Any, statement: Any) -> list[dict[str, Any]]:
    from psycopg.errors import ObjectNotInPrerequisiteState
    from sqlalchemy.exc import OperationalError

    from chatter_db.errors import ChatterError

    try:
        return [dict(row) for row in connection.execute(statement).mappings()]
    except OperationalError as error:
        if not isinstance(error.orig, ObjectNotInPrerequisiteState):
            raise
        # Restored without what fills it; the worker would, too.
        raise ChatterError(
            f"{error.orig.diag.message_primary}. Figures that stand on it can't be read or checked "
            "until the owner says: select analytics.refresh(true);"
        ) from error


def _report(title: str, mend: str, rows: list[dict[str, Any]]) -> None:
    from chatter_db.cli.tables import amount, console, show

    out = console()
    if not rows:
        out.print(f"[green]good[/]   {title}", soft_wrap=True)
        return
    out.print(f"[red]wrong[/]  {title} Not so in {amount(len(rows), 'row')}:", soft_wrap=True)
    # Digit for digit: what differs may be the last one.
    shown = [
        ["" if value is None else str(value) for value in row.values()]
        for row in rows[:MAX_ROWS_SHOWN]
    ]
    show(tuple(rows[0]), shown)
    if len(rows) > MAX_ROWS_SHOWN:
        out.print(f"... and {len(rows) - MAX_ROWS_SHOWN} more; --json shows all.")
    out.print(f"       To mend it: {mend}", highlight=False, markup=False, soft_wrap=True)
