"""Turns of a run: what the person asked, and which reply the person was shown."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
)

from chatter_db.recorder.runs import Run


def asked_of(inputs: Any) -> list[HumanMessage]:
    """What the person asked: the human messages at the end of a graph's inputs.

    Apps without a checkpointer send the whole history every time; only what
    comes after the last reply is new.
    """
    messages = inputs.get("messages") if isinstance(inputs, Mapping) else inputs
    if isinstance(messages, str):
        return [HumanMessage(messages)]
    if isinstance(messages, BaseMessage):
        messages = [messages]
    if not isinstance(messages, Sequence) or not messages:
        return []
    try:
        # LangGraph takes ("user", "text") and dicts for messages too.
        converted = convert_to_messages(list(messages))
    except (ValueError, NotImplementedError):
        return []
    asked: list[HumanMessage] = []
    for message in reversed(converted):
        if not isinstance(message, HumanMessage):
            break
        asked.insert(0, message)
    return asked


def shown_of(run: Run, outputs: Any) -> UUID | None:
    """The reply that a person was shown, found in the outputs of the run.

    By message id; a graph whose outputs are plain texts by the text; and where
    the outputs say nothing, the last reply that asked for no tool. One that asks for a
    tool is an answer where it is how the model fills in an agent's `response_format`
    (https://docs.langchain.com/oss/python/langchain/structured-output).
    """
    values = list(outputs.values()) if isinstance(outputs, Mapping) else [outputs]
    for value in reversed(values):
        items = value if isinstance(value, list | tuple) else [value]
        filled_in = _is_filled_in(outputs, items)
        for item in reversed(items):
            if isinstance(item, AIMessage) and item.id in run.replies:
                if filled_in or not item.tool_calls:
                    return run.replies[item.id]
            elif isinstance(item, str) and item in run.texts:
                return run.texts[item]
    return run.last_reply


def _is_filled_in(outputs: Any, messages: Sequence[Any]) -> bool:
    """Whether these end in a schema filled in; a state may keep that of an earlier run."""
    return (
        isinstance(outputs, Mapping)
        and outputs.get("structured_response") is not None
        and bool(messages)
        and isinstance(messages[-1], ToolMessage)
    )
