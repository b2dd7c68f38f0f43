"""The command `chatter`: one file per command, each thin.

Exit codes: 0 good, 1 found something wrong, 2 wrong use.
"""

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console

from chatter_db import database
from chatter_db.cli.adopt import adopt_command
from chatter_db.cli.check import check
from chatter_db.cli.demo import demo
from chatter_db.cli.denied import advice
from chatter_db.cli.doctor import doctor
from chatter_db.cli.import_ import import_command
from chatter_db.cli.key import key
from chatter_db.cli.migrate import migrate
from chatter_db.cli.prices import price, prices, reprice
from chatter_db.cli.psql import psql
from chatter_db.cli.rebook import rebook
from chatter_db.cli.report import report
from chatter_db.cli.serve import serve
from chatter_db.cli.status import status
from chatter_db.cli.tables import escaped
from chatter_db.cli.tail import tail
from chatter_db.cli.top import top
from chatter_db.cli.trace import trace
from chatter_db.cli.unblock import unblock
from chatter_db.cli.worker import worker
from chatter_db.errors import ChatterError

app = typer.Typer(
    name="chatter",
    help="True numbers for LLM chat products: Postgres keeps the books.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(migrate)
app.command()(demo)
app.command()(serve)
app.command()(key)
app.command()(unblock)
app.command()(tail)
app.command()(worker)
app.command("import")(import_command)
app.command("adopt")(adopt_command)
app.command()(check)
app.command()(status)
app.command()(rebook)
app.command()(report)
app.command()(top)
app.command()(prices)
app.command()(price)
app.command()(reprice)
app.command()(doctor)
app.command()(trace)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chatter-db {version('chatter-db')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command; a user's mistake ends in a message, never in a traceback."""
    if os.environ.get("COLUMNS") == "0":
        # A terminal that doesn't know how wide it is. Rich would write nothing.
        del os.environ["COLUMNS"]
    # psycopg warns that a pipeline was aborted by the error that is told here.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        app()
    except ChatterError as error:
        _say(*filter(None, (str(error), _denied(error))))
        sys.exit(error.exit_code)
    except Exception as error:
        if (told := _denied(error) or database.hindrance(error)) is None:
            raise
        _say(told)
        sys.exit(ChatterError.exit_code)


def _denied(error: Exception) -> str | None:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    return advice(command, error)


def _say(*lines: str) -> None:
    Console(stderr=True).print("[red]Error:[/]", escaped("\n".join(lines)), highlight=False)
