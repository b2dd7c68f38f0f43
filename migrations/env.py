"""Runs the migrations: one transaction, one migrator at a time.

Reached by `alembic upgrade head` and by `chatter migrate`, which brings its
connection along.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from chatter_db import database, migrating
from chatter_db.errors import ChatterError, SchemaError
from chatter_db.queries import query

# Any constant that no other program on the server is likely to use: "chatter".
MIGRATION_LOCK = int.from_bytes(b"chatter", "big")


def run(connection: Connection, notice: Callable[[str], None]) -> None:
    database.require_no_unknown_pooler(connection)
    connection.execute(query("unlimited"))
    # The lock is held to the end of the transaction. A second migrator waits
    # here, then finds nothing left to do.
    database.take_turn(database.driver_of(connection), MIGRATION_LOCK, "migration", notice)
    before = migrating.current_revision(connection)
    migrating.require_known(before)
    context.config.attributes["before"] = before
    aside: Sequence[Row[Any]] = ()
    if before not in {None, migrating.head()}:
        connection.execute(query("lock_tables"))
        aside = connection.execute(query("views_aside")).all()
    # An operator's own SQL, which is taken as it is.
    as_it_is = connection.execution_options(no_parameters=True)
    for view in aside:
        as_it_is.exec_driver_sql(view.aside)
    # Asking "if not exists" needs the right to create, even where it exists.
    if not connection.dialect.has_schema(connection, "chatter"):
        connection.execute(CreateSchema("chatter"))
    context.configure(
        connection=connection,
        version_table="alembic_version",
        version_table_schema="chatter",
        include_schemas=True,
    )
    context.run_migrations()
    for view in aside:
        try:
            as_it_is.exec_driver_sql(view.back)
        except DBAPIError as error:
            raise SchemaError(
                f"Nothing was changed: the view {view.name} can't be on this version what it was: "
                f"{str(error.orig).splitlines()[0]}. Drop it, migrate, and make it anew."
            ) from error
    connection.commit()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    with database.interruptible(given):
        run(given, context.config.attributes.get("notice", context.config.print_stdout))
elif context.is_offline_mode():
    raise CommandError(
        "No --sql here: the migrations are SQL files, read them in migrations/versions."
    )
else:
    try:
        with database.database_url() as url:
            engine = database.sync_engine(url)
            with engine.connect() as opened, database.interruptible(opened):
                run(opened, context.config.print_stdout)
            engine.dispose()
    except KeyboardInterrupt:
        # Alembic's own command would print a traceback. 130 is what a shell makes of Ctrl-C.
        sys.exit(130)
    except DBAPIError as error:
        raise CommandError(migrating.failure(error)) from error
    except ChatterError as error:
        # Alembic's own command prints a CommandError without a traceback.
        raise CommandError(str(error)) from error
