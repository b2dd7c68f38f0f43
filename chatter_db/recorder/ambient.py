"""The run around a model call that wasn't told of it.

What LangGraph knows of a run goes with a node in a context variable, for whatever is invoked there.
`generate` and `agenerate` of a model don't look at it, and who gives a call callbacks of its own
replaces those of the run.
"""

from typing import TypeVar
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables.config import var_child_runnable_config

Handler = TypeVar("Handler", bound=BaseCallbackHandler)


def run_id() -> UUID | None:
    """The run that this code is in, as LangChain counts runs: of a node, for example."""
    callbacks = _callbacks()
    return callbacks.parent_run_id if callbacks is not None else None


def handler(kind: type[Handler]) -> Handler | None:
    """The handler of this kind that the run was given."""
    callbacks = _callbacks()
    handlers = callbacks.handlers if callbacks is not None else []
    return next((each for each in handlers if isinstance(each, kind)), None)


def _callbacks() -> BaseCallbackManager | None:
    config = var_child_runnable_config.get()
    callbacks = config.get("callbacks") if config else None
    return callbacks if isinstance(callbacks, BaseCallbackManager) else None
