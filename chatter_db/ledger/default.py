"""The process's own Chatter, for an app that makes none."""

import asyncio
import threading
from typing import Any

from chatter_db.errors import UsageError
from chatter_db.ledger.chatter import Chatter
from chatter_db.models import Conversation
from chatter_db.recorder import Recorder

_default: Chatter | None = None
_default_lock = threading.Lock()


def _open_default() -> Chatter:
    global _default  # noqa: PLW0603 - one per process is the point
    with _default_lock:
        if _default is None:
            _default = Chatter.connect().__enter__()
        return _default


async def default_chatter() -> Chatter:
    """The process's own Chatter on its settings: opened at first use, closed at exit."""
    if _default is not None:
        return _default
    return await asyncio.to_thread(_open_default)


async def chosen_chatter(given: object) -> Chatter:
    """`given`, else the process's own. Raises UsageError for what is no Chatter."""
    if given is None:
        return await default_chatter()
    if not isinstance(given, Chatter):
        raise UsageError(
            "chatter must be a Chatter, as of: async with Chatter.connect(dsn) as chatter; "
            f"not {type(given).__name__}."
        )
    return given


async def create_conversation(*, chatter: Chatter | None = None, **options: Any) -> Conversation:
    """`Chatter.create_conversation`, by default of the process's own Chatter."""
    return await (await chosen_chatter(chatter)).create_conversation(**options)


def install(**options: Any) -> Recorder:
    """Books every model call of this process: `Chatter.install` on the process's own Chatter.

    Opens it if need be, which takes a moment: call it when the app starts.
    """
    return _open_default().install(**options)


def uninstall() -> None:
    """Takes `install()` back; no-op if there was none."""
    if _default is not None:
        _default.uninstall()


async def close_default_chatter() -> None:
    """Closes the process's own Chatter, for an app that shuts down in order; no-op if closed."""
    global _default
    with _default_lock:
        chatter, _default = _default, None
    if chatter is not None:
        await chatter.__aexit__(None, None, None)
