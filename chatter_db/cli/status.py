"""`chatter status`."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from sqlalchemy import Connection

# The queries, and what they tell of.
PARTS: Final = {
    "status_server": "the server",
    "status_books": "users, conversations and messages",
    "status_runs": "running executions",
    "status_events": "events",
    "status_analytics": "the worker",
}


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Show where the books are, what is in them, and what wants attention.

    A login that may not see all of it is shown what it may see.
    """
    from chatter_db import database, migrating
    from chatter_db.cli.books import connected, migrated_url
    from chatter_db.cli.spooled import spooled
    from chatter_db.cli.tables import plain
    from chatter_db.settings import settings

    with migrated_url() as url, connected(url) as connection:
        facts = {
            "database": database.place(url),
            "server": "yours" if settings().database_url else "embedded",
            "schema_version": migrating.head(),
            **_facts(connection),
            **spooled(url),
        }
    if as_json:
        typer.echo(json.dumps(facts, default=plain))
    else:
        _print(facts)


def _facts(connection: "Connection") -> dict[str, Any]:
    """What this login may see, in one snapshot, and by name what it may not."""
    from sqlalchemy.exc import DBAPIError

    from chatter_db import database
    from chatter_db.queries import query

    connection.execution_options(isolation_level="REPEATABLE READ")
    facts: dict[str, Any] = {}
    hidden = []
    for name, subject in PARTS.items():
        try:
            with connection.begin_nested():
                facts |= connection.execute(query(name)).mappings().one()
        except DBAPIError as error:
            if database.denial(error) is None:
                raise
            hidden.append(subject)
    return {**facts, "hidden": hidden}


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from chatter_db.cli.tables import console, escaped

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        if name in {"hidden", "spooled_elsewhere"}:
            continue
        shown = f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)
        table.add_row(name.replace("_", " "), escaped(shown))
    out = console()
    out.print(table)
    if facts["hidden"]:
        out.print(f"Not for this login to see: {'; '.join(facts['hidden'])}.")
    for wanting in _attention(facts):
        out.print(f"[yellow]{wanting}[/]")


def _attention(facts: dict[str, Any]) -> Iterator[str]:
    """What wants attention, and what to do about it."""
    from chatter_db.cli.tables import escaped

    if facts.get("worker_missing"):
        yield (
            "No worker for a minute; changes that wait to be folded: "
            f"{facts['deltas_waiting']:,}. Figures stay exact, but get slower. Run chatter serve "
            "or chatter worker."
        )
    if facts.get("work_held_by"):
        yield (
            "A lock of the background work is held by what is no worker: "
            f"{escaped(facts['work_held_by'])}. Figures stay exact, but get slower. Unless it "
            "counts anew or refreshes for you, end it: select pg_terminate_backend(SESSION);"
        )
    if facts.get("events_of_another_cluster"):
        yield (
            "Events with transaction ids of another cluster, which readers hear late or never: "
            f"{facts['events_of_another_cluster']:,}. After a restore say once: select "
            "chatter.renew_event_stream();"
        )
    if facts["spooled_records"]:
        yield (
            f"Records that wait in {escaped(facts['spool'])}: {facts['spooled_records']:,} "
            f"({facts['spooled_bytes']:,} bytes). The process that wrote them books them as soon "
            "as it can; if it has died, your application does when it starts again, or chatter "
            "serve."
        )
    for other in facts["spooled_elsewhere"]:
        yield (
            f"Records that wait for {escaped(other['database'])} in "
            f"{escaped(other['spool'])}: {other['records']:,}. If that is this database under an "
            "earlier address, and nobody writes there any more, move its .jsonl files to "
            f"{escaped(other['move_to'])} (make it if it isn't there), and start your "
            "application."
        )
    if facts["refused_records"]:
        yield (
            "Records that Postgres refused, or that could not be read: "
            f"{facts['refused_records']:,}, in {escaped(facts['refused'])}, as they were: booked "
            "in reduced form, if at all (metadata ->> 'reduced' of the message says why). Once the "
            "cause is mended, chatter rebook books them."
        )
    if facts.get("unpriced_calls"):
        yield (
            f"Model calls of unknown price: {facts['unpriced_calls']:,}. They are not in the cost."
        )
    if facts.get("unknown_usage"):
        yield (
            f"Model calls that reported no usage: {facts['unknown_usage']:,}. Their tokens "
            "are unknown, not zero."
        )
