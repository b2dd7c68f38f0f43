"""The SQL that Python runs, kept in files of its own under `sql/`."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import TextClause, make_url, text

_PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """The directory `sql` or `migrations`: inside an installed package, else beside it."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


@cache
def query(name: str) -> TextClause:
    """The named query `sql/queries/<name>.sql`, its parameters written `:name`."""
    return text(statement(name))


@cache
def psycopg_query(name: str) -> bytes:
    """The same for psycopg itself, its parameters written `%(name)s`."""
    dialect = make_url("postgresql+psycopg://").get_dialect()()
    return str(query(name).compile(dialect=dialect)).encode()


@cache
def statement(name: str) -> str:
    """The same for asyncpg itself, and psycopg's RawCursor, its parameters written `$1`."""
    return (resource("sql") / "queries" / f"{name}.sql").read_text("utf-8")


@dataclass(frozen=True)
class Check:
    """An invariant of the books: a query that must return no row."""

    name: str
    title: str
    mend: str
    statement: TextClause


@cache
def checks() -> tuple[Check, ...]:
    """Every file of `sql/checks`, in order of name.

    A check begins with two comment lines: `-- what must hold.` and
    `-- Mend: what to do if it doesn't.`
    """
    return tuple(_read_check(path) for path in sorted((resource("sql") / "checks").glob("*.sql")))


def _read_check(path: Path) -> Check:
    sql = path.read_text("utf-8")
    title, mend, _ = sql.split("\n", 2)
    return Check(
        name=path.stem,
        title=title.removeprefix("-- "),
        mend=mend.removeprefix("-- Mend: "),
        statement=text(sql),
    )
