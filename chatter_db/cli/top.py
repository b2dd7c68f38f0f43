"""`chatter top`."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from chatter_db.ledger import Chatter

EVERY_SECONDS = 1.0


def top(
    time_zone: Annotated[str | None, typer.Option(help="Whose today; default UTC.")] = None,
    once: Annotated[bool, typer.Option(help="Print it once and end.")] = False,
) -> None:
    """Show what runs now and what today has cost, live, until Ctrl-C."""
    from rich.console import Group
    from rich.live import Live

    from chatter_db.analytics import run_report
    from chatter_db.cli.books import open_chatter
    from chatter_db.cli.tables import console, fitted

    out = console()

    async def picture(chatter: "Chatter") -> Group:
        async with chatter.session() as session:
            # One snapshot for all the tables, or they would not add up.
            snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            await session.connection(execution_options=snapshot)
            today = {"since": "today", "time_zone": time_zone}
            running = await run_report(session, "running")
            models = await run_report(session, "cost_by_model", **today, limit=8)
            users = await run_report(session, "cost_by_user", **today, limit=8)
        parts: list[Any] = [f"As of {models.as_of:%H:%M:%S} UTC\n"]
        tables = {"Running": running, "Models today": models, "Users today": users}
        for heading, table in tables.items():
            parts.append(f"[bold]{heading}[/]" + ("" if table.rows else ": nothing"))
            if table.rows:
                parts.append(fitted(table.columns, table.rows, out.width))
            parts.append("")
        return Group(*parts)

    async def main() -> None:
        async with open_chatter(records=False) as chatter:
            if once:
                out.print(await picture(chatter))
                return
            with Live(await picture(chatter), console=out, auto_refresh=False, screen=True) as live:
                while True:
                    await asyncio.sleep(EVERY_SECONDS)
                    live.update(await picture(chatter), refresh=True)

    asyncio.run(main())
