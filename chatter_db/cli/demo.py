"""`chatter demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.console import Console
    from sqlalchemy.ext.asyncio import AsyncSession

    from chatter_db.ledger import Chatter

QUESTIONS = (
    "What is 12 * (3 + 4) / 7?",
    "And what time is it now?",
    "Thank you, that is all.",
)

ROWS = 8
"""How many the tables of the dearest have."""


def demo() -> None:
    """See it work: a chat with tools and a real usage trace, booked by Postgres."""
    import asyncio

    from chatter_db.cli.books import needs_server_extra

    needs_server_extra("langgraph")
    asyncio.run(_demo())


async def _demo() -> None:
    from rich.console import Console

    from chatter_db import database
    from chatter_db.cli.books import open_chatter
    from chatter_db.settings import settings

    console = Console(highlight=False)
    async with open_chatter() as chatter:
        console.rule("The books")
        console.print(f"Postgres at {database.place(chatter.url)}, schema chatter migrated.")
        console.rule(f"A chat with tools, model {settings().model}")
        await _chat(console, chatter)
        console.rule("A real usage trace: 1,644 model calls of coding sessions, 2024 to 2026")
        _import_trace(console, chatter)
        console.rule("What it cost")
        async with chatter.session() as session:
            await _print_query(console, session, "Dearest conversations", "dearest_conversations")
            await _print_query(console, session, "Dearest models", "dearest_models")
    console.rule("Next")
    chatter_command = _command()
    for command, purpose in (
        ("serve", "the live dashboard, a chat to try, and the event stream"),
        ("tail", "the events as they happen"),
        ("status", "where the books are and what is in them"),
        ("check", "whether every total equals its rows"),
        ("psql", "SQL on the books; try: \\d+ chatter.messages"),
        ("import FILE", "your own usage, JSON Lines or CSV"),
    ):
        console.print(f"  [bold]{chatter_command} {command:<11}[/]  {purpose}")
    console.print("  Your own app: see “Five minutes” in README.md")


async def _chat(console: "Console", chatter: "Chatter") -> None:
    from rich.table import Table

    from chatter_db.models import Conversation
    from chatter_db.queries import query
    from chatter_db.workflow import execute_chat_workflow

    table = Table("", "", "message", box=None, padding=(0, 1))
    table.add_column("tokens", justify="right")
    table.add_column("cost", justify="right")
    conversation = await chatter.create_conversation(user="demo", title="A first chat")
    for question in QUESTIONS:
        response = await execute_chat_workflow(
            question, conversation_id=conversation.id, user="demo", chatter=chatter
        )
        async with chatter.session() as session:
            rows = await session.execute(
                query("run_messages"), {"execution_id": response.execution_id}
            )
            for row in rows.all():
                table.add_row(*_message(row))
    console.print(table)
    async with chatter.session() as session:
        booked = await session.get_one(Conversation, conversation.id)
    cost = _dollars(booked.total_cost, booked.unpriced_calls)
    console.print(
        f"\nThe conversation, totalled by triggers: [bold]{booked.message_count} messages, "
        f"{booked.prompt_tokens} + {booked.completion_tokens} tokens, "
        f"{cost}[/]\n(a play tariff if the model is the offline one)"
    )


def _dollars(cost: "Decimal", unpriced_calls: int) -> str:
    return "unknown cost" if unpriced_calls and not cost else f"${cost.normalize():f}"


def _message(row: Any) -> tuple[str, str, str, str, str]:
    """A message as a row of the table: role, kind, text, tokens in and out, cost."""
    from chatter_db.cli.tables import escaped

    text = row.content or ", ".join(
        f"{call['name']}({', '.join(map(str, call['args'].values()))})"
        for call in row.tool_calls or ()
    )
    style = "" if row.kind == "turn" else "[dim]"
    if row.model_used is None:
        return f"[cyan]{row.role}", f"[dim]{row.kind}", style + escaped(text), "", ""
    cost = f"${row.cost.normalize():f}" if row.cost is not None else "unknown"
    tokens = f"{row.prompt_tokens} + {row.completion_tokens}"
    return f"[cyan]{row.role}", f"[dim]{row.kind}", style + escaped(text), tokens, cost


def _import_trace(console: "Console", chatter: "Chatter") -> None:
    from chatter_db.importing import import_file

    trace = Path(__file__).parent.parent / "demo" / "aider_trace.csv"
    report = import_file(chatter.url, trace)
    cost = "unknown cost" if report.cost is None else f"${report.cost:,.6f}"
    console.print(
        f"{report.booked:,} calls booked, {report.already_there:,} were there already, "
        f"in {report.seconds:.2f} s: {report.prompt_tokens + report.completion_tokens:,} tokens, "
        f"{cost}. (Aider's public analytics, Apache-2.0)"
    )


async def _print_query(console: "Console", session: "AsyncSession", title: str, name: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from chatter_db.queries import query

    result = await session.execute(query(name), {"limit": ROWS})
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, column in enumerate(result.keys()):
        table.add_column(
            column.replace("_", " "), justify="right" if number else "left", overflow="fold"
        )
    for row in result.all():
        table.add_row(*(_shown(value) for value in row))
    console.print(table)


def _shown(value: Any) -> str:
    from decimal import Decimal

    from chatter_db.cli.tables import escaped, six_decimals

    match value:
        case None:
            return ""
        case int():
            return f"{value:,}"
        case Decimal():
            return f"${six_decimals(value)}"
        case _:
            return escaped(str(value))


def _command() -> str:
    """How this very program was called, so that the next commands can be pasted."""
    import os
    import sys

    program = Path(sys.argv[0]).absolute()
    try:
        return os.fspath(program.relative_to(Path.cwd()))
    except ValueError:
        return program.name
