"""`chatter serve`."""

import asyncio
import os
import sys
import webbrowser
from typing import Annotated

import typer


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port; 0 for any that is free.", min=0, max=65535)
    ] = 8000,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Leave the background work to `chatter worker`.")
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Show the dashboard in a browser, if there is a desktop.")
    ] = False,
) -> None:
    """Serve the chat API, the event stream and the dashboard, until Ctrl-C."""
    from rich.console import Console

    from chatter_db.cli.books import needs_server_extra, open_chatter

    needs_server_extra(
        "argon2", "fastapi", "httptools", "langchain", "langgraph", "prometheus_client", "uvicorn"
    )
    from chatter_db.server.serving import fast_loop
    from chatter_db.server.serving import serve as run

    console = Console(highlight=False)

    def ready(address: str, secret: str | None, has_admin: bool) -> None:
        console.print(f"[bold]{address}[/]  dashboard; {address}/docs  API")
        if secret is not None:
            console.print("Sign in with this API key of the new user admin; it is shown only now:")
            console.print(f"  [bold]{secret}[/]", soft_wrap=True)
        elif has_admin:
            console.print("Sign in with an API key; `chatter key USER` makes one.")
        else:
            console.print(
                "[yellow]There is no admin: the user admin was there already, as a plain one. "
                "`chatter key NAME --admin` makes an admin of another name, with an API key.[/]",
                soft_wrap=True,
            )
        console.print("Ctrl-C ends it.")
        if open_browser and _has_desktop():
            webbrowser.open(address)

    async def main() -> None:
        async with open_chatter() as chatter:
            await run(chatter, host, port, worker=not no_worker, ready=ready)

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(main())


def _has_desktop() -> bool:
    """Whether a browser has a window to open; in a terminal alone it would take that over."""
    return sys.platform in {"darwin", "win32"} or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
