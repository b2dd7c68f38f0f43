"""`chatter key`."""

import asyncio
from typing import Annotated

import typer


def key(
    user: Annotated[str, typer.Argument(help="Your own id of the user; who is new is made.")],
    admin: Annotated[bool, typer.Option("--admin", help="A new user may see everything.")] = False,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "chatter key",
) -> None:
    """Print a new API key of a user, for signing in to the server. It is shown only now."""
    from chatter_db.cli.books import errors, needs_server_extra, open_chatter
    from chatter_db.cli.tables import escaped

    needs_server_extra("argon2")
    from sqlalchemy import select

    from chatter_db.accounts import MAX_KEY_NAME, Accounts
    from chatter_db.errors import UsageError
    from chatter_db.models import User
    from chatter_db.recorder.arguments import require_text

    try:
        f"{user}{name}".encode()
    except UnicodeEncodeError:
        raise UsageError("The user and the name of a key must be UTF-8.") from None
    # Before the user is made, who would stay.
    require_text("The name of a key", name, at_most=MAX_KEY_NAME)

    async def make() -> str:
        async with open_chatter() as chatter:
            accounts = Accounts(chatter)
            async with chatter.session() as session:
                found = await session.scalar(select(User).where(User.external_id == user))
            if found is None:
                identity = await accounts.create_user(user, role="admin" if admin else "user")
                user_id = identity.user_id
                errors.print(f"User {escaped(user)} is new.", highlight=False)
            elif admin and found.role != "admin":
                raise UsageError(f"{user} is there already, and no admin: choose another name.")
            else:
                user_id = found.id
            return (await accounts.keys.create(user_id, name)).secret

    typer.echo(asyncio.run(make()))
