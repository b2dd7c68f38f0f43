"""`chatter worker`."""

import asyncio
import signal


def worker() -> None:
    """Fold, refresh and prune in the background, until Ctrl-C. Any number may run; one leads."""
    from chatter_db.analytics import Worker
    from chatter_db.cli.books import errors, migrated_url
    from chatter_db.events import Hub
    from chatter_db.settings import settings

    async def main(url: str) -> None:
        hub = Hub(url, poll_seconds=settings().poll_seconds)
        working = Worker(url, hub, tell=errors.print)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, working.stop)
        errors.print("Background work; Ctrl-C ends it.")
        try:
            await working.run()
        finally:
            await hub.close()

    with migrated_url() as url:
        asyncio.run(main(url))
