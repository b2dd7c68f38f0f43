"""`chatter tail`."""

import asyncio
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

if TYPE_CHECKING:
    from chatter_db.events import Event


def tail(
    after: Annotated[
        str | None, typer.Option(help="Position to go on from, as --json prints it; or: oldest.")
    ] = None,
    conversation: Annotated[UUID | None, typer.Option(help="Of this conversation only.")] = None,
    execution: Annotated[UUID | None, typer.Option(help="Of this execution only.")] = None,
    event_type: Annotated[
        list[str] | None, typer.Option("--type", help="Of this type only; may be repeated.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="Of this category only; may be repeated.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Stop after so many.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Follow the events as they are committed, until Ctrl-C."""
    from chatter_db.cli.books import open_chatter

    show = _print_json if as_json else _print

    async def follow() -> None:
        async with open_chatter(records=False) as chatter:
            start = await chatter.event_hub().oldest() if after == "oldest" else after
            shown = 0
            async for event in chatter.events(
                after=start,
                conversation=conversation,
                execution=execution,
                event_types=event_type,
                categories=category,
            ):
                show(event)
                shown += 1
                if shown == count:
                    return

    asyncio.run(follow())


def _print_json(event: "Event") -> None:
    import msgspec

    typer.echo(msgspec.json.encode(event))


def _print(event: "Event") -> None:
    from chatter_db.cli.tables import harmless

    figures = "  ".join(
        f"{name}={value}"
        for name, value in event.payload.items()
        if name != "v" and value is not None
    )
    shown = harmless(figures).replace("\n", "\\n")
    where = str(event.conversation_id or event.user_id or "")[-12:]
    typer.echo(f"{event.created_at:%H:%M:%S.%f}  {event.event_type:<22} {where:<12}  {shown}")
