"""`chatter migrate`."""

import typer


def migrate() -> None:
    """Bring the schema to this version; safe to repeat, and to run twice at once."""
    from chatter_db import database, migrating
    from chatter_db.cli.books import warn

    with database.database_url() as url:
        result = migrating.migrate(url, notice=warn)
        place = database.place(url)
    if not result.changed:
        typer.echo(f"Schema chatter at {place} is at version {result.after} already.")
    else:
        before = f"from {result.before} " if result.before else ""
        typer.echo(f"Schema chatter at {place} migrated {before}to version {result.after}.")
