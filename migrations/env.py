"""Runs the migrations: one transaction, one migrator at a time.

Reached by `alembic upgrade head` and by `chatter migrate`, which brings its
connection along.
"""

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, func, select
from sqlalchemy.schema import CreateSchema

from chatter_db import database, migrating
from chatter_db.errors import ChatterError
from chatter_db.queries import query

# Any constant that no other program on the server is likely to use: "chatter".
MIGRATION_LOCK = int.from_bytes(b"chatter", "big")


def run(connection: Connection) -> None:
    database.require_no_unknown_pooler(connection)
    # The lock is held to the end of the transaction. A second migrator waits
    # here, then finds nothing left to do.
    connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    before = migrating.current_revision(connection)
    migrating.require_known(before)
    context.config.attributes["before"] = before
    if before not in {None, migrating.head()}:
        connection.execute(query("lock_tables"))
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
    connection.commit()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
elif context.is_offline_mode():
    raise CommandError(
        "No --sql here: the migrations are SQL files, read them in migrations/versions."
    )
else:
    try:
        with database.database_url() as url:
            engine = database.sync_engine(url)
            with engine.connect() as opened:
                run(opened)
            engine.dispose()
    except ChatterError as error:
        # Alembic's own command prints a CommandError without a traceback.
        raise CommandError(str(error)) from error
