"""Brings the schema `chatter` to the version this code was written for.

`chatter migrate` and `alembic upgrade head` both end in `migrations/env.py`; this
module is the way there for a program, and the check that code and schema agree.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, func, select
from sqlalchemy.exc import DBAPIError

from chatter_db import database
from chatter_db.errors import SchemaError
from chatter_db.queries import query, resource


@dataclass(frozen=True)
class Migrated:
    """What a migration did: revisions before (None for a new schema) and after."""

    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after


def head() -> str:
    """The revision this code needs."""
    revision = _scripts().get_current_head()
    if revision is None:
        raise SchemaError(f"No migrations found in {resource('migrations')}.")
    return revision


def migrate(url: str, notice: Callable[[str], None] = lambda _: None) -> Migrated:
    """Brings the schema at `url` to `head()`; several processes may do so at once.

    `notice` gets warnings: Postgres's, such as that roles could not be created, of an encoding
    that can't hold every text, and of who else migrates for seconds.

    Raises SchemaError if the database is newer than this code, the migrating user lacks a right
    or the connection is lost half way, DatabaseUnavailable if there is no database.
    """

    def open_connection() -> psycopg.Connection[tuple[object, ...]]:
        opened = database.connect(url)
        opened.add_notice_handler(lambda note: _pass_on(note, notice))
        return opened

    engine = create_engine("postgresql+psycopg://", creator=open_connection)
    try:
        with engine.connect() as connection:
            encoding = connection.scalar(select(func.getdatabaseencoding()))
            if encoding != "UTF8":
                notice(
                    f"The database is encoded in {encoding}. A text that this can't hold is left "
                    "out, its figures are booked. Make the database with encoding UTF8 instead."
                )
            config = _config()
            config.attributes["connection"] = connection
            config.attributes["notice"] = notice
            command.upgrade(config, "head")
            return Migrated(before=config.attributes["before"], after=head())
    except DBAPIError as error:
        raise SchemaError(f"Migration at {database.place(url)} failed. {failure(error)}") from error
    finally:
        engine.dispose()


def failure(error: DBAPIError) -> str:
    """Why a migration failed, and what is there now."""
    if error.connection_invalidated:
        return (
            f"The connection was lost: {database.said(error)}. "
            "All of it was done or nothing; to be sure, migrate again."
        )
    return f"Nothing was changed: {_reason(error)}"


def _reason(error: DBAPIError) -> str:
    refused = error.orig
    if isinstance(refused, psycopg.errors.DependentObjectsStillExist):
        # Not as Postgres says it: its hint is to drop them all at once.
        detail = "; ".join((refused.diag.message_detail or "").splitlines())
        return (
            f"it makes anew what objects of your own stand on ({detail}). "
            "Drop these, migrate, and make them again."
        )
    return str(refused)


def current_revision(connection: Connection) -> str | None:
    """The revision of the schema behind `connection`, None if it was never migrated."""
    if not connection.scalar(query("schema_exists")):
        return None
    revision: str | None = connection.scalar(query("schema_revision"))
    return revision


def require_known(revision: str | None) -> None:
    """Raises SchemaError if `revision` was made by a newer chatter-db than this one."""
    if revision is not None and revision not in {s.revision for s in _scripts().walk_revisions()}:
        raise SchemaError(
            f"The schema chatter is at version {revision}; this chatter-db knows versions up to "
            f"{head()}. Upgrade chatter-db, or use the version that made the schema."
        )


def require_current(connection: Connection) -> None:
    """Raises SchemaError unless the schema behind `connection` is at `head()`.

    And UsageError for a pooler that CHATTER_POOLER doesn't say.
    """
    database.require_no_unknown_pooler(connection)
    revision = current_revision(connection)
    require_known(revision)
    if revision != head():
        found = f"is at version {revision}" if revision else "is not there yet"
        raise SchemaError(
            f"The schema chatter {found}; this chatter-db needs version {head()}. "
            "Run: chatter migrate"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _pass_on(note: psycopg.errors.Diagnostic, notice: Callable[[str], None]) -> None:
    # Alembic asks "if not exists" of its own table and such; only warnings matter.
    if note.severity_nonlocalized == "WARNING":
        notice(". ".join(part for part in (note.message_primary, note.message_hint) if part))
