"""The definitions of all figures in one document, from the comments in the database."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row

from chatter_db.queries import query

_HEAD = """\
# What the figures mean

Written by `chatter report --definitions` from the comments in the database, where `\\d+` shows
them too. A figure counts when its tokens were spent, not when the conversation began. Each view
has a twin ending in `_live`: the view is as of its column `as_of`, the twin is exact now.
"""

_SORTS = {
    "view": "Materialized views",
    "live view": "Live views without a materialized one",
    "rollup": "Rollups, which the views stand on",
}


def definitions(connection: Connection) -> str:
    """Markdown: every rollup and view in words with its columns, then each column once."""
    rows = connection.execute(query("metric_definitions")).all()
    parts = [_HEAD]
    for sort, of_sort in groupby(rows, lambda row: row.sort):
        parts.append(f"\n## {_SORTS[sort]}\n")
        for (name, definition), columns in groupby(of_sort, lambda row: (row.name, row.definition)):
            names = ", ".join(f"`{row.column_name}`" for row in columns)
            parts.append(f"\n**{name}**: {definition}\n{names}\n")
    parts.append("\n## Columns\n\n| column | meaning |\n|---|---|\n")
    parts += [f"| `{name}` | {meaning} |\n" for name, meaning in _meanings(rows)]
    return "".join(parts)


def _meanings(rows: Sequence[Row[Any]]) -> Iterator[tuple[str, str]]:
    """Each column once; where one name means several things, with the places of each."""
    for name, of_name in groupby(sorted(rows, key=_column), _column):
        places: dict[str, list[str]] = {}
        for row in of_name:
            places.setdefault(row.meaning, []).append(row.name)
        for meaning, relations in places.items():
            where = "" if len(places) == 1 else f" ({', '.join(relations)})"
            yield name, meaning + where


def _column(row: Row[Any]) -> str:
    name: str = row.column_name
    return name
