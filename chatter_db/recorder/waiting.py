"""Who waits for a call: how its end is learnt where LangChain tells nothing of it.

A call that is awaited is over with its task, and LangChain calls no handler when
that task is cancelled. A call in a thread goes on, whatever becomes of those who
wait for it, and LangChain always tells of its end.
"""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any
from uuid import UUID

_MANAGER = "langchain_core.callbacks.manager"

# Calls that are made and answered within one await.
_AWAITED = frozenset(
    {
        ("langchain_core.language_models.chat_models", "agenerate"),
        ("langchain_core.tools.base", "arun"),
    }
)
# Sync code goes on whoever waits for it; the newest streams are read by a task of their own.
_ON_ITS_OWN = frozenset(
    {
        (_MANAGER, "handle_event"),
        ("langchain_core.language_models.chat_models", "ensure_started"),
    }
)
# Chains are asked no more than whether they are awaited.
_ASYNC = frozenset({(_MANAGER, "ahandle_event")})


@dataclass(frozen=True)
class Waiting:
    """Who waits for a call or a chain."""

    task: "asyncio.Task[Any] | None" = None
    """The task that started it; None if it goes on whatever becomes of that."""
    awaited: bool = False
    """Whether it is over as soon as its task is."""

    def is_over(self, ended: "Waiting") -> bool:
        """Whether a call is over, now that the chain above it has ended, which `ended` waited for.

        One that goes on by itself isn't, nor one that another task was started for.
        """
        return self.task is not None and (self.task is ended.task or self.task.done())


def waiting(*, chain: bool = False) -> Waiting:
    """Who waits for what a callback has just said to begin; asked inside that callback."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        place = (frame.f_globals.get("__name__"), frame.f_code.co_name)
        if place in _ON_ITS_OWN:
            return Waiting()
        if place in _AWAITED:
            return Waiting(asyncio.current_task(), awaited=True)
        if chain and place in _ASYNC:
            break
        frame = frame.f_back
    return Waiting(asyncio.current_task())


@dataclass
class _Awaited:
    """What a task awaits: one call or tool, or the calls of one `agenerate`."""

    ids: set[UUID]
    to_come: int
    """Calls of the same await that have yet to begin."""


class Watch:
    """Tells `over` of calls and tools whose task is cancelled, which LangChain doesn't."""

    def __init__(self, over: Callable[[UUID], None]) -> None:
        self._over = over
        self._awaited: dict[asyncio.Task[Any], _Awaited] = {}

    def begin(self, wait: Waiting, run_id: UUID, *, together: int = 1) -> None:
        """`together` are the calls that begin within the same await."""
        if wait.task is None or not wait.awaited:
            return
        before = self._awaited.get(wait.task)
        if before is not None and before.to_come:
            before.to_come -= 1
            before.ids.add(run_id)
            return
        self._awaited[wait.task] = _Awaited({run_id}, together - 1)
        if before is None:
            wait.task.add_done_callback(self._task_over)
        else:
            # A task awaits one thing at a time: that before ended by a timeout that was caught.
            self._all_over(before)

    def end(self, wait: Waiting, run_id: UUID) -> None:
        """It has ended by itself."""
        awaited = self._awaited.get(wait.task) if wait.task is not None else None
        if wait.task is None or awaited is None:
            return
        awaited.ids.discard(run_id)
        if not awaited.ids:
            self._awaited.pop(wait.task, None)
            wait.task.remove_done_callback(self._task_over)

    def _task_over(self, task: "asyncio.Task[Any]") -> None:
        awaited = self._awaited.pop(task, None)
        if awaited is not None:
            self._all_over(awaited)

    def _all_over(self, awaited: _Awaited) -> None:
        for run_id in list(awaited.ids):
            self._over(run_id)
