"""The two doors of a callback: awaited on an event loop, blocking where LangChain has none.

LangChain's sync managers run a coroutine on an event loop that is made for it and closed after,
several for each model call; beside gevent, whose threads are one, they can't even do that.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from functools import wraps
from types import MethodType
from typing import Any, ParamSpec, TypeVar, cast

from langchain_core.callbacks.manager import handle_event

from chatter_db.recorder.arguments import run_id_of

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_blocking = ContextVar("chatter_db_blocking", default=False)

_RUN_IDS = frozenset({"run_id", "parent_run_id"})


def callback(method: Callable[Arguments, Coroutine[Any, Any, None]]) -> Callable[Arguments, Any]:
    """A handler's method that waits for nothing but `durable()`, for both kinds of callers."""
    return cast("Callable[Arguments, Any]", _Callback(method))


async def durable(future: "Future[Result] | None") -> Result | None:
    """The result of `future`, if there is one; blocks until it is there for who can't await."""
    if future is None:
        return None
    # To wait for one that is done would take a turn of the loop.
    if _blocking.get() or future.done():
        return future.result()
    return await asyncio.wrap_future(future)


class _Callback:
    def __init__(self, method: Callable[..., Coroutine[Any, Any, None]]) -> None:
        @wraps(method)
        async def awaited(*args: Any, **kwargs: Any) -> None:
            for name in _RUN_IDS & kwargs.keys():
                if kwargs[name] is not None:
                    kwargs[name] = run_id_of(kwargs[name])
            await method(*args, **kwargs)

        @wraps(method)
        def blocking(*args: Any, **kwargs: Any) -> None:
            token = _blocking.set(True)
            try:
                awaited(*args, **kwargs).send(None)
            except StopIteration:
                return
            finally:
                _blocking.reset(token)
            raise RuntimeError(f"{method.__name__} waits for an event loop.")

        self._awaited, self._blocks = awaited, blocking

    def __get__(self, handler: object, owner: type | None = None) -> Any:
        if handler is None:
            return self._awaited
        asked_by = sys._getframe(1).f_code
        return MethodType(
            self._blocks if asked_by is handle_event.__code__ else self._awaited, handler
        )
