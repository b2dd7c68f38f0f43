"""`chatter rebook`."""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

if TYPE_CHECKING:
    from chatter_db.recorder.records import Record


def rebook(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Book again what was refused or could not be read, once its cause is mended; nothing twice.

    What is refused again stays where it is, and so does what is in the books in reduced form:
    its texts are nowhere else.
    """
    from chatter_db.cli.books import migrated_url
    from chatter_db.cli.spooled import spooled
    from chatter_db.cli.tables import amount

    with migrated_url() as url:
        before = spooled(url)["refused_records"]
        _book_again(url)
        after = spooled(url)
    left, file = after["refused_records"], after["refused"]
    if as_json:
        told = {"booked_records": before - left, "refused_records": left, "refused": file}
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{amount(before - left, 'record')} booked.")
    if left:
        typer.echo(
            f"Refused again, not to be read by this version, or in the books in reduced form: "
            f"{left:,}, in {file}."
        )


def _book_again(url: str) -> None:
    """Lets what was put aside wait in the spool, and books that."""
    from chatter_db.ledger import spool_name
    from chatter_db.recorder import Writer, open_spool
    from chatter_db.recorder.segment import readable

    with ExitStack() as opening:
        opened = open_spool(spool_name(url))
        opening.callback(opened.close)
        aside = {line: readable(line) for line in opened.aside()}
        reduced = _reduced(url, [record for records in aside.values() for record in records or ()])
        back = {
            line
            for line, records in aside.items()
            if records is not None and reduced.isdisjoint(map(_marked, records))
        }
        if back:
            opened.take_back(back)
        opening.pop_all()
    Writer(url, opened).close()


def _reduced(url: str, records: Iterable["Record"]) -> set[UUID]:
    """The rows of `records` that are in the books in reduced form."""
    from chatter_db import database
    from chatter_db.queries import psycopg_query

    ids = [id_ for record in records if (id_ := _marked(record))]
    with database.connect(url) as connection:
        found = connection.execute(psycopg_query("reduced_records"), {"ids": ids})
        return {id_ for (id_,) in found}


def _marked(record: "Record") -> UUID | None:
    """The row that says if a record is booked in reduced form."""
    from chatter_db.recorder.records import MessageRow, RunStarted

    match record:
        case MessageRow():
            return record.id
        case RunStarted():
            return record.execution_id
        case _:
            return None
