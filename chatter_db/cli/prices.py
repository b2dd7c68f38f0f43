"""`chatter prices`, `chatter price` and `chatter reprice`."""

import json
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatter_db.errors import UsageError

if TYPE_CHECKING:
    from chatter_db.repricing import Repriced

_AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]
_Provider = Annotated[str | None, typer.Option(help="Only calls of this provider.")]
_Model = Annotated[str | None, typer.Option(help="Only calls of this model.")]
_Price = Annotated[str | None, typer.Option(help="US dollars per million tokens.")]


def prices(
    missing: Annotated[
        bool, typer.Option("--missing", help="Models whose calls have no cost.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """List prices of your own, or with --missing the models that have none. Exit code 1 if any."""
    from chatter_db import repricing
    from chatter_db.cli.books import connected, migrated_url
    from chatter_db.cli.tables import plain

    with migrated_url() as url, connected(url) as connection:
        rows = repricing.missing(connection) if missing else repricing.prices(connection)
    if as_json:
        typer.echo(json.dumps({"missing" if missing else "prices": rows}, default=plain))
    elif missing:
        shown = [row | {"known": "yes" if row["known"] else ""} for row in rows]
        _print(shown, "Every call whose usage is known has a cost.")
        if not all(row["known"] for row in rows):
            typer.echo(
                "\nWrite a price: chatter price PROVIDER MODEL --prompt USD --completion USD "
                "--since DATE\nthen: chatter reprice --reason WHY"
            )
        if any(row["known"] for row in rows):
            typer.echo("\nThose marked known need only: chatter reprice --reason WHY")
    else:
        _print(rows, "No prices of your own: all are from the price list of genai-prices.")
    if missing and rows:
        raise typer.Exit(1)


def price(
    provider: Annotated[str, typer.Argument(help="As chatter prices --missing names it.")],
    model: Annotated[str, typer.Argument(help="As chatter prices --missing names it.")],
    since: Annotated[
        str, typer.Option(help="For calls from here on (UTC): 2026-01-31, 2026-01-31T08:00.")
    ],
    prompt: _Price = None,
    completion: _Price = None,
    cache_read: _Price = None,
    cache_write: _Price = None,
    ends: Annotated[
        bool, typer.Option("--ends", help="From here on the price list counts again.")
    ] = False,
    note: Annotated[str | None, typer.Option(help="Where the price is from.")] = None,
) -> None:
    """Write a price of your own, before the price list's; it holds until the next one."""
    from chatter_db import repricing
    from chatter_db.cli.books import connected, migrated_url

    if ends == (prompt is not None or completion is not None):
        raise UsageError("Either --prompt and --completion, or --ends.")
    with migrated_url() as url, connected(url) as connection:
        repricing.set_price(
            connection,
            provider,
            model,
            valid_from=_moment("--since", since),
            prompt=_decimal("--prompt", prompt),
            completion=_decimal("--completion", completion),
            cache_read=_decimal("--cache-read", cache_read),
            cache_write=_decimal("--cache-write", cache_write),
            note=note,
        )
    typer.echo(f"Written. It counts for calls from {since} on; for those booked: chatter reprice.")


def reprice(
    reason: Annotated[str | None, typer.Option(help="Why; it is kept.")] = None,
    provider: _Provider = None,
    model: _Model = None,
    since: Annotated[str | None, typer.Option(help="Calls from here on (UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="Calls up to here, not included.")] = None,
    computed: Annotated[
        bool, typer.Option("--computed", help="Also those that have a computed cost.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell, and change nothing.")] = False,
    undo: Annotated[
        str | None,
        typer.Option(help="Put back what this repricing changed; its id, or how it begins."),
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="The repricings there were.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Give calls without a cost one, by the prices at their time. Audited, and can be undone.

    Costs that a provider stated or that were imported are left alone; imported calls without a
    cost get one.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from chatter_db import repricing
    from chatter_db.cli.books import connected, errors, migrated_url
    from chatter_db.cli.tables import amount, plain

    with migrated_url() as url, connected(url) as connection:
        if as_list:
            rows = repricing.repricings(connection)
            if as_json:
                typer.echo(json.dumps({"repricings": rows}, default=plain))
            else:
                _print(rows, "There was none.")
            return
        columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} calls"))
        with Progress(*columns, console=errors, transient=True) as progress:
            task = progress.add_task("")

            def show(done: int) -> None:
                progress.update(task, completed=done)

            if undo is not None:
                undone = repricing.undo(connection, repricing.find(connection, undo), show)
            elif reason is None and not dry_run:
                raise UsageError("Say why, it is kept: --reason WHY. Or --dry-run.")
            else:
                selection = repricing.Selection(
                    provider=provider,
                    model=model,
                    since=_moment("--since", since) if since else None,
                    until=_moment("--until", until) if until else None,
                    computed=computed,
                )
                outcome = repricing.reprice(
                    connection, selection, reason=reason or "", trial=dry_run, progress=show
                )
    if undo is not None:
        told = (
            f"{amount(undone, 'call')} put back. What was changed again since then stays as it is."
        )
        typer.echo(json.dumps({"undone": undone}) if as_json else told)
    elif as_json:
        typer.echo(json.dumps(_as_json(outcome), default=plain))
    else:
        _print_outcome(outcome)


def _moment(option: str, given: str) -> datetime:
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise UsageError(
            f"{option}: a date or time like 2026-01-31 or 2026-01-31T08:00, not {given!r}."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _decimal(option: str, given: str | None) -> Decimal | None:
    if given is None:
        return None
    try:
        return Decimal(given)
    except InvalidOperation:
        raise UsageError(f"{option}: US dollars like 2.50, not {given!r}.") from None


def _as_json(outcome: "Repriced") -> dict[str, Any]:
    return {
        "repricing": outcome.id,
        "priced": outcome.priced,
        "changed_meanwhile": outcome.changed_meanwhile,
        "models": [
            {"provider": provider, "model": model, **vars(found)}
            for (provider, model), found in outcome.models.items()
        ],
    }


def _print_outcome(outcome: "Repriced") -> None:
    from chatter_db.cli.tables import amount

    rows = [
        {
            "provider": provider,
            "model": model,
            "calls": found.looked_at,
            "priced": found.priced,
            "no price": found.unknown,
            "before": found.before,
            "after": found.after,
            "difference": (found.after or 0) - (found.before or 0),
        }
        for (provider, model), found in sorted(outcome.models.items())
    ]
    _print(rows, "Nothing to price.")
    if outcome.id is None:
        typer.echo("\nNothing was changed.")
    elif outcome.priced:
        priced = amount(outcome.priced, "call")
        typer.echo(f"\n{priced} priced. To undo: chatter reprice --undo {outcome.id}")
    if outcome.changed_meanwhile:
        typer.echo(f"Changed meanwhile and left alone: {outcome.changed_meanwhile:,}.")


def _print(rows: list[dict[str, Any]], nothing: str) -> None:
    from chatter_db.cli.tables import show

    if rows:
        show(tuple(rows[0]), [tuple(row.values()) for row in rows])
    else:
        typer.echo(nothing)
