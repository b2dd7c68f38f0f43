"""`chatter unblock`."""

import asyncio
from typing import Annotated

import typer


def unblock(
    subject: Annotated[str, typer.Argument(help="An address, or your own id of a user.")],
) -> None:
    """Let an address or a user sign in again that was blocked after too many failures."""
    from chatter_db.cli.books import needs_server_extra, open_chatter
    from chatter_db.cli.tables import harmless

    needs_server_extra("argon2")
    from chatter_db.accounts import Accounts

    async def lift() -> bool:
        async with open_chatter() as chatter:
            return await Accounts(chatter).lift_block(subject)

    lifted = asyncio.run(lift())
    typer.echo(f"{harmless(subject)} {'may sign in again' if lifted else 'was not blocked'}.")
