"""The run around a model call that wasn't told of it, and whose it is.

What LangGraph knows of a run goes with a node in a context variable, for whatever is invoked there.
`generate` and `agenerate` of a model don't look at it, and who gives a call callbacks of its own
replaces those of the run.
"""

from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables.config import var_child_runnable_config

from chatter_db.recorder.arguments import run_id_of

# Where LangGraph's `get_runtime()` looks, which needs a graph around it.
_RUNTIME = "__pregel_runtime"

Handler = TypeVar("Handler", bound=BaseCallbackHandler)


def run_id() -> UUID | None:
    """The run that this code is in, as LangChain counts runs: of a node, for example."""
    callbacks = _callbacks()
    given = callbacks.parent_run_id if callbacks is not None else None
    return run_id_of(given) if given else None


def handler(kind: type[Handler]) -> Handler | None:
    """The handler of this kind that the run was given."""
    callbacks = _callbacks()
    handlers = callbacks.handlers if callbacks is not None else []
    return next((each for each in handlers if isinstance(each, kind)), None)


def user(metadata: Mapping[str, Any]) -> str | None:
    """Whose run this is, where the recorder wasn't told: `user_id`, metadata, context or
    configurable.

    Those are the word of whoever asked for the run: where LangGraph's server knows who signed
    in, it is that one (https://docs.langchain.com/langsmith/custom-auth). What is configurable and
    the context are known inside of a run only, not yet when it begins.
    """
    config = var_child_runnable_config.get()
    configurable: Mapping[str, Any] = (config and config.get("configurable")) or {}
    context = getattr(configurable.get(_RUNTIME), "context", None)
    said = (
        configurable.get("langgraph_auth_user_id"),
        metadata.get("user_id"),
        context.get("user_id")
        if isinstance(context, Mapping)
        else getattr(context, "user_id", None),
        configurable.get("user_id"),
    )
    return next((str(name) for name in said if isinstance(name, str | int | UUID) and name), None)


def _callbacks() -> BaseCallbackManager | None:
    config = var_child_runnable_config.get()
    callbacks = config.get("callbacks") if config else None
    return callbacks if isinstance(callbacks, BaseCallbackManager) else None
