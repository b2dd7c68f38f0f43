"""The recorder of calls that are given none: of the run around them, else of the process."""

import threading
from contextvars import ContextVar
from typing import cast

from langchain_core.tracers.context import register_configure_hook

from chatter_db.errors import UsageError
from chatter_db.recorder import ambient
from chatter_db.recorder.callbacks import Recorder


class _Installed:
    """What LangChain takes for a context variable.

    The value of a real one would be missing in every new thread.
    """

    def __init__(self) -> None:
        self.recorder: Recorder | None = None

    def get(self) -> Recorder | None:
        return ambient.handler(Recorder) or self.recorder


_installed = _Installed()
_lock = threading.Lock()
_hooked = False


def hook() -> None:
    """Has LangChain ask here for every run and call from now on."""
    global _hooked  # noqa: PLW0603 - LangChain's hooks can't be taken back
    with _lock:
        if not _hooked:
            register_configure_hook(
                cast("ContextVar[Recorder | None]", _installed),
                inheritable=True,
                handle_class=Recorder,
            )
            _hooked = True


def install(recorder: Recorder) -> Recorder:
    """Attaches `recorder` to every run of this process that begins from now on.

    A run that is given a recorder of its own is left to that one. Returns the one that is
    installed: that of before, if it books alike (a notebook's cell that is run again, two modules
    that both see to it). Raises UsageError if that one books otherwise.
    """
    hook()
    with _lock:
        installed = _installed.recorder
        if installed is None:
            installed = _installed.recorder = recorder
        elif not installed.books_like(recorder):
            raise UsageError(
                "A recorder with other arguments, or of other books, is installed in this process "
                "already: uninstall it first."
            )
        return installed


def uninstall(recorder: Recorder) -> bool:
    """Takes it back, for runs that begin from now on; False if it isn't the installed one."""
    with _lock:
        if _installed.recorder is not recorder:
            return False
        _installed.recorder = None
        return True
