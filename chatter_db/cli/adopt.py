"""`chatter adopt`."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from chatter_db.importing import AdoptReport


def adopt_command(
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="The tables' database; else the books' own."),
    ] = None,
    source_variable: Annotated[
        str | None,
        typer.Option(
            "--from-env",
            metavar="NAME",
            help="The variable of the environment that has this URL, out of the process list.",
        ),
    ] = None,
    conversations: Annotated[
        str, typer.Option(metavar="TABLE", help="As table or schema.table.")
    ] = "public.conversations",
    messages: Annotated[
        str, typer.Option(metavar="TABLE", help="As table or schema.table.")
    ] = "public.messages",
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="SOURCE=TARGET",
            help="A column of the messages (conversations.SOURCE: of the conversations) and what "
            "it is here; repeatable.",
        ),
    ] = None,
    ignored: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore", metavar="COLUMN", help="A column that means something else; repeatable."
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="ROWS", help="Rows a transaction: fewer lock for less long.")
    ] = 20_000,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be adopted and what is wrong; book nothing."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Adopt the conversations and messages of another backend's tables, and say what was wrong.

    The tables are only read, in one snapshot: the backend may go on writing. Batches commit one by
    one and nothing is booked twice, so run it again after a kill, or for what came since.
    Totals follow the messages; usage that nobody recorded is unknown, not zero. A message is known
    by its id.

    Exit code 1 if there are messages that can't be booked, 2 for wrong use.
    """
    from chatter_db.cli.books import migrated_url, warn
    from chatter_db.cli.import_ import parsed, print_json, progress_bar
    from chatter_db.database import database_url
    from chatter_db.importing import adopt

    chosen = parsed(mapping or [])
    with (
        database_url(_source(source, source_variable)) as source_url,
        migrated_url() as url,
        progress_bar() as progress,
    ):
        report = adopt(
            url,
            source=source_url,
            conversations=conversations,
            messages=messages,
            mapping=chosen,
            ignored=ignored or [],
            batch=batch,
            dry_run=dry_run,
            progress=progress,
            notice=warn,
        )
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.rejected:
        raise typer.Exit(1)


def _source(url: str | None, variable: str | None) -> str | None:
    """The URL of the tables' database, None for the books' own.

    Raises UsageError for both ways at once, and for a variable that isn't set.
    """
    from chatter_db.cli.books import warn
    from chatter_db.database import has_password
    from chatter_db.errors import UsageError

    if variable is None:
        if url is not None and has_password(url):
            warn(
                "Whoever lists processes sees the password in --from. "
                "Put the URL into an environment variable and name it with --from-env."
            )
        return url
    if url is not None:
        raise UsageError("Use --from or --from-env, not both.")
    if not os.environ.get(variable):
        raise UsageError(f"The environment variable {variable} (--from-env) is not set.")
    return os.environ[variable]


def _print(report: "AdoptReport") -> None:
    from chatter_db.cli.tables import amount, console, counted, escaped, show

    out = console(highlight=False)
    found = report.found
    title = "What would be adopted (dry run)" if report.dry_run else "Adopted"
    counts = (
        ("conversations there", found.conversations),
        ("messages there", found.messages),
        ("booked", report.booked),
        ("already booked", report.already_there),
        ("can't be booked", report.rejected),
        ("new conversations", report.new_conversations),
        ("new users", report.new_users),
        ("replies of unknown usage", found.unknown_usage),
        ("  of these, stored as 0 tokens", found.zero_usage),
        ("replies of unknown cost", found.unpriced_calls),
        ("messages without their conversation", found.orphans),
        ("messages whose id came before", found.repeated_ids),
        ("messages that look like another (kept)", found.look_alikes),
        ("conversations whose totals had drifted", found.drifted),
    )
    out.print(counted(title, counts))
    out.print(f"{amount(found.messages, 'message')} in {report.seconds:.2f} s.")
    if report.ignored_columns:
        names = escaped(", ".join(report.ignored_columns))
        out.print(f"Columns of the messages without a meaning here: {names}.")
    for bad in report.bad_rows:
        which = "a message" if bad.id is None else bad.id
        out.print(f"[red]not booked[/] {escaped(f'{which}: {bad.field}: {bad.reason}')}")
    if found.drift:
        out.print("\nDrifted")
        rows = [
            (
                each.conversation,
                each.total,
                "" if each.stored is None else f"{each.stored:,}",
                f"{each.recounted:,}",
            )
            for each in found.drift
        ]
        show(("conversation", "total", "was", "is"), rows, figures=("was", "is"))
