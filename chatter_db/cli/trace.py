"""`chatter trace`."""

import asyncio
import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from chatter_db.tracing import Step, Trace


def trace(
    correlation_id: Annotated[str, typer.Argument(help="As in the header X-Correlation-ID.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Tell the story of one request: runs, model calls, tools, with durations and costs.

    Exit code 1 if nothing in the books bears that id.
    """
    from chatter_db.cli.books import errors, open_chatter
    from chatter_db.cli.tables import plain
    from chatter_db.tracing import trace as tell

    async def read() -> "Trace":
        async with open_chatter(records=False) as chatter:
            return await tell(chatter, correlation_id)

    told = asyncio.run(read())
    if as_json:
        steps = [asdict(step) for step in told.steps]
        typer.echo(json.dumps({"correlation_id": correlation_id, "steps": steps}, default=plain))
    elif told.steps:
        _print(told)
    else:
        errors.print(
            f"Nothing in the books bears the correlation id {correlation_id!r}.", markup=False
        )
    if not told.steps:
        raise typer.Exit(1)


def _print(told: "Trace") -> None:
    from chatter_db.cli.tables import amount, console, escaped, show

    began = told.steps[0].began_at
    out = console()
    correlation_id = escaped(told.correlation_id)
    out.print(f"{began:%Y-%m-%d %H:%M:%S} UTC, correlation id {correlation_id}")
    figures = ("at ms", "took ms", "tokens", "cost")
    show(
        ("step", "name", "status", *figures),
        [_row(step, began) for step in told.steps],
        figures=figures,
    )
    calls = amount(told.unpriced_calls, "call")
    unpriced = f", and {calls} of unknown price" if told.unpriced_calls else ""
    cost = "unknown cost" if told.cost is None else f"${told.cost:f}"
    out.print(f"{told.lasted.total_seconds() * 1000:,.0f} ms, {cost}{unpriced}")


def _row(step: "Step", began: datetime) -> tuple[Any, ...]:
    from rich.text import Text

    inside = step.execution_id is not None and step.step != "workflow"
    failed = step.error_type is not None
    return (
        ("  " if inside else "") + step.step,
        step.name,
        Text(f"{step.status}: {step.error_type}", "red") if failed else step.status,
        f"{(step.began_at - began).total_seconds() * 1000:,.0f}",
        "" if step.duration_ms is None else f"{step.duration_ms:,.0f}",
        ""
        if step.prompt_tokens is None and step.completion_tokens is None
        else f"{_count(step.prompt_tokens)} + {_count(step.completion_tokens)}",
        _cost(step),
    )


def _cost(step: "Step") -> str:
    if step.cost is not None:
        return f"${step.cost:f}"
    return "unknown" if step.step in ("workflow", "model call") else ""


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"
