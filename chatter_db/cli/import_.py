"""`chatter import`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from chatter_db.importing import AdoptReport, ImportReport


def import_command(
    file: Annotated[
        Path, typer.Argument(help="JSON Lines, or CSV or TSV with a header; - is stdin.")
    ],
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="SOURCE=TARGET",
            help="A column of the file and what it is here; repeatable.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column that tells rows apart; else id, else line number and content.",
        ),
    ] = None,
    file_format: Annotated[
        Literal["jsonl", "csv"] | None,
        typer.Option("--format", help="Told from the file's name when not given; TSV is csv."),
    ] = None,
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Book the good lines and report the bad ones.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything, then undo it and say what it was.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Book usage from a JSON Lines or CSV file: all of it or nothing, and nothing twice.

    Columns are named like those of chatter.messages, plus conversation, user and
    time (Unix seconds or ISO 8601, such as 2026-10-25T10:15:00+02:00 or 20261025; UTC
    without a zone). A row without a time has that of its booking. Common other names,
    such as thread_id, model or timestamp, are known; --map says the rest.

    A conversation is unique per user: the same one under two users is two.

    A row without tokens has those of its usage: the provider's own block, OpenAI's,
    Anthropic's, Gemini's or another's.

    Fields of CSV are separated by comma, semicolon or tab, whichever its first line
    has most of outside quotes.

    Exit code 1 if there are bad lines, 2 for wrong use.
    """
    from chatter_db.cli.books import migrated_url, warn
    from chatter_db.importing import LinesRejected, import_file

    chosen = parsed(mapping or [])
    with migrated_url() as url, progress_bar() as progress:
        try:
            report = import_file(
                url,
                file,
                mapping=chosen,
                format=file_format,
                on_bad_line="skip" if skip_bad_lines else "reject",
                dry_run=dry_run,
                key=key,
                progress=progress,
                notice=warn,
            )
        except LinesRejected as error:
            if as_json:
                print_json(error.report)
            raise
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.rejected:
        raise typer.Exit(1)


def parsed(mapping: list[str]) -> dict[str, str]:
    """SOURCE=TARGET pairs. Raises UsageError for one that is none, or names a source again."""
    from chatter_db.errors import UsageError

    pairs = [each.partition("=") for each in mapping]
    for source, equals, target in pairs:
        if not (source and equals and target):
            raise UsageError(
                f"--map {source}{equals}{target} must be SOURCE=TARGET, as in --map usd=cost."
            )
        if sum(other == source for other, _, _ in pairs) > 1:
            raise UsageError(f"--map names the column {source} twice.")
    return {source: target for source, _, target in pairs}


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where somebody can see it."""
    if not sys.stderr.isatty():
        yield lambda done, total: None  # rich before 14.3 ends a disabled bar with an empty line
        return

    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from chatter_db.cli.books import errors

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield show


def _print(report: "ImportReport") -> None:
    from chatter_db.cli.tables import amount, console, counted, escaped

    out = console(highlight=False)
    title = "What would be booked (dry run)" if report.dry_run else "Booked"
    counts = (
        ("rows read", report.rows_read),
        ("booked", report.booked),
        ("already there", report.already_there),
        ("bad, skipped", report.rejected),
        ("new conversations", report.new_conversations),
        ("new users", report.new_users),
        ("prompt tokens", report.prompt_tokens),
        ("completion tokens", report.completion_tokens),
        ("total tokens", report.total_tokens),
        ("cost, US dollars", "unknown" if report.cost is None else report.cost),
    )
    out.print(counted(title, counts))
    out.print(f"{amount(report.rows_read, 'row')} in {report.seconds:.2f} s.")
    for remark in _remarks(report):
        out.print(f"[yellow]{remark}[/]")
    if report.ignored_columns:
        out.print(f"Columns without a meaning here: {escaped(', '.join(report.ignored_columns))}.")
    for bad in report.bad_lines:
        out.print(f"[red]skipped[/] {escaped(str(bad))}")
    if report.rejected > len(report.bad_lines):
        more = amount(report.rejected - len(report.bad_lines), "more bad line")
        out.print(f"... and {more}.")


def _remarks(report: "ImportReport") -> Iterator[str]:
    """What somebody should know of the rows that could be booked."""
    if report.empty:
        yield "The file is empty."
    if report.without_time:
        yield f"Rows without a time: {report.without_time:,}. Theirs is that of their booking."
    if report.in_future:
        yield f"Rows with a time more than a day ahead: {report.in_future:,}."
    if report.unread_usage:
        yield (
            f"Rows with a usage block that can't be read: {report.unread_usage:,}. Their tokens "
            "are unknown, unless columns say them."
        )
    if report.unpriced_calls:
        yield (
            f"Calls without a cost: {report.unpriced_calls:,}. chatter reprice --reason WHY prices "
            "those whose price is known; chatter prices --missing tells which."
        )


def print_json(report: "AdoptReport | ImportReport") -> None:
    """The report as one JSON object."""
    import json
    from dataclasses import asdict

    from chatter_db.cli.tables import plain

    typer.echo(json.dumps(asdict(report), default=plain))
