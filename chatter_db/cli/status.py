"""`chatter status`."""

import json
from typing import Annotated, Any

import typer


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Show where the books are, what is in them, and what wants attention."""
    from chatter_db import database, migrating
    from chatter_db.cli.books import connected, migrated_url
    from chatter_db.queries import query
    from chatter_db.settings import settings

    with migrated_url() as url, connected(url) as connection:
        facts = dict(connection.execute(query("status")).mappings().one())
        facts = {
            "database": database.place(url),
            "server": "yours" if settings().database_url else "embedded",
            "schema_version": migrating.head(),
            **facts,
        }
    if as_json:
        typer.echo(json.dumps(facts, default=str))
    else:
        _print(facts)


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from chatter_db.cli.tables import console

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)
        table.add_row(name.replace("_", " "), shown)
    out = console()
    out.print(table)
    if facts["worker_missing"]:
        out.print(
            f"[yellow]No worker for a minute; {facts['deltas_waiting']:,} changes wait to be "
            "folded. Figures stay exact, but get slower. Run chatter serve or chatter worker.[/]"
        )
    if facts["unpriced_calls"]:
        out.print(
            f"[yellow]{facts['unpriced_calls']:,} model calls have no known price and are not in "
            "the cost.[/]"
        )
    if facts["unknown_usage"]:
        out.print(
            f"[yellow]{facts['unknown_usage']:,} model calls reported no usage: their tokens are "
            "unknown, not zero.[/]"
        )
