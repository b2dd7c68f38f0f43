"""What graphs are given and return: states, their updates, the talks in them, their pauses.

LangGraph's own are known by name: the recorder works without it.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from itertools import takewhile
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from pydantic import BaseModel

_MOST = 1_000
"""What is looked at of a list, from its end: it may be a million numbers."""

# Who speaks in messages that are dicts or pairs.
_ROLES = ("tool", "assistant", "ai", "user", "human")


def is_pause(error: BaseException | None) -> bool:
    """Whether `error` is LangGraph's way to stop and wait for a person, or to go elsewhere."""
    return _is_a("GraphBubbleUp", error)


def updates_of(command: object) -> object:
    """What a LangGraph `Command` puts into the state; None for anything else."""
    return getattr(command, "update", None) if _is_a("Command", command) else None


def resume_of(command: object) -> object:
    """What a LangGraph `Command` answers an interrupt; None for anything else."""
    return getattr(command, "resume", None) if _is_a("Command", command) else None


def goes_on(inputs: object) -> bool:
    """Whether a graph with these goes on where it was interrupted."""
    return inputs is None or _is_a("Command", inputs)


def _is_a(name: str, value: object) -> bool:
    return any(kind.__name__ == name for kind in type(value).__mro__)


def last_turns(state: Any) -> Iterator[list[Any]]:
    """What was said last in each talk of a state, of what updates one, or of a list of these.

    Some servers give the calls of every turn the same ids.
    """
    update = updates_of(state)
    state = state if update is None else update
    if isinstance(state, list | tuple):
        for one in state[-_MOST:]:
            if isinstance(one, Mapping) or updates_of(one) is not None:
                yield from last_turns(one)
    for value in _values(state):
        talk = value[-_MOST:] if isinstance(value, list | tuple) else [value]
        latest = takewhile(lambda one: not isinstance(one, HumanMessage), map(said, reversed(talk)))
        yield list(latest)[::-1]


def _values(state: Any) -> list[Any]:
    """What a state has in it, which is a mapping or an object; anything else by itself."""
    if isinstance(state, Mapping):
        return list(state.values())
    if is_dataclass(state):
        return [getattr(state, each.name, None) for each in fields(state)]
    if isinstance(state, BaseModel) and not isinstance(state, BaseMessage):
        return list(vars(state).values())
    return [state]


def said(one: Any) -> Any:
    """A message as LangChain has it: LangGraph takes dicts and pairs too."""
    role = one[0] if isinstance(one, tuple) and len(one) == 2 else None
    if isinstance(one, Mapping) and "content" in one:
        role = one.get("role", one.get("type"))
    if isinstance(role, str) and role in _ROLES:
        with suppress(ValueError, TypeError, NotImplementedError):  # not quite
            return convert_to_messages([one])[0]
    return one
