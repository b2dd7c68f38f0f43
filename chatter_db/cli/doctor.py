"""`chatter doctor`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from chatter_db.diagnosing import Diagnosis


def doctor(
    model: Annotated[str, typer.Argument(help="Provider and model, as in openai:gpt-4o-mini.")],
    base_url: Annotated[
        str | None, typer.Option(help="Where the model is served, if not by its provider.")
    ] = None,
    call: Annotated[
        bool, typer.Option("--call", help="Make one small real call, with the environment's keys.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Say what the books will know of a model's calls, and what to do about the rest.

    Is its package there, does it report usage on streams, is its price known?
    Exit code 1 if something would be unknown.
    """
    from dataclasses import asdict

    from chatter_db.diagnosing import diagnose

    found = diagnose(model, base_url=base_url, call=call)
    if as_json:
        typer.echo(json.dumps(asdict(found), default=str))
    else:
        _print(found)
    if found.problems:
        raise typer.Exit(1)


def _print(found: "Diagnosis") -> None:
    from rich.table import Table

    from chatter_db.cli.tables import console, escaped

    streams = {True: "reported", False: "not reported", None: "can't be told"}
    prices = [f"{name} {_price(price)}" for name, price in (found.unit_prices or {}).items()]
    rows = {
        "model": f"{found.provider} {found.model}",
        "package": f"{found.package} {found.package_version or 'is not installed'}",
        "provider in the books": found.booked_as if found.booked_as != found.provider else "",
        "usage of streams": streams[found.streams_usage],
        "prices": "\n".join(prices) or "not known",
        "price list": f"{found.price_list}, at {found.priced_at:%Y-%m-%d}"
        if found.price_list
        else "",
        "a call reported": ", ".join(
            f"{name} {value}"
            for name, value in (found.call or {}).items()
            if value is not None and name != "usage"
        ),
        "the books will have": _booked(found),
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows.items():
        if value:
            table.add_row(name, escaped(value))
    out = console()
    out.print(table)
    for problem in found.problems:
        out.print("[yellow]unknown[/] ", escaped(problem), highlight=False)
    if not found.problems:
        out.print("[green]good[/]  Nothing of its calls is unknown.")


def _price(price: str | dict[str, str]) -> str:
    if isinstance(price, str):
        return f"${price}"
    tiers = sorted((int(start), each) for start, each in price.items())
    return ", ".join(f"${each}" + (f" from {start:,}" if start else "") for start, each in tiers)


def _booked(found: "Diagnosis") -> str:
    tokens = "tokens" if found.streams_usage else "tokens of calls that aren't streamed"
    return f"{tokens}, {'with' if found.unit_prices else 'without'} a cost"
