"""Imports usage from JSON Lines or CSV files, whole or not at all.

    from chatter_db.importing import import_file

    report = import_file("postgresql://...", "usage.jsonl")
    print(report.booked, report.cost)

A file's way into the books:

    reading.py   bytes -> records, one per line or CSV row
    columns.py   which column of the file means which column of the books
    values.py    a value -> COPY text, or the reason why it can't be booked
    usage.py     a provider's usage block -> tokens
    rows.py      a record -> a staged row with its id
    booking.py   staged rows -> users, conversations and messages
    importer.py  all of it, in one transaction

Tables of another application go the same way from rows.py on, batch by batch:

    tables.py    two tables -> messages in the words of an import, and what is wrong with them
    adopting.py  all of it, a transaction a batch
"""

from chatter_db.importing.adopting import AdoptReport, BadRow, adopt
from chatter_db.importing.importer import import_file
from chatter_db.importing.report import BadLine, ImportReport, LinesRejected

__all__ = [
    "AdoptReport",
    "BadLine",
    "BadRow",
    "ImportReport",
    "LinesRejected",
    "adopt",
    "import_file",
]
