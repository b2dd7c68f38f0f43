"""Turns of a run: what the person asked, and which reply the person was shown."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)

from chatter_db.recorder.runs import Run
from chatter_db.recorder.states import resume_of, said, updates_of

_QUESTION = ("question", "input", "query")


def asked_of(inputs: Any) -> list[HumanMessage]:
    """What the person asked: the human messages at the end of a graph's inputs.

    Apps without a checkpointer send the whole history every time; only what
    comes after the last reply is new. A state may be an object (a dataclass, a Pydantic
    model), and what is new be in the update of a `Command`. Without messages it is the text
    that goes by one of LangChain's names for a question.
    """
    update = updates_of(inputs)
    state = inputs if update is None else update
    messages = _stated(state, "messages")
    if messages is None:
        texts = (_stated(state, name) for name in _QUESTION)
        # A chain may be asked by a text or messages alone, and a message be a dict.
        alone = said(state)
        messages = next((text for text in texts if isinstance(text, str) and text), alone)
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
        # Instructions may stand anywhere.
        if isinstance(message, SystemMessage):
            continue
        if not isinstance(message, HumanMessage):
            break
        asked.insert(0, message)
    return asked


def _stated(state: Any, name: str) -> Any:
    return state.get(name) if isinstance(state, Mapping) else getattr(state, name, None)


def resumed_by(inputs: Any) -> list[str]:
    """The texts with which a `Command` has a graph go on: one, or one for each interrupt."""
    resume = resume_of(inputs)
    texts = resume.values() if isinstance(resume, Mapping) else [resume]
    return [text for text in texts if isinstance(text, str)]


def resumed_in(run: Run, outputs: Any) -> list[HumanMessage]:
    """What the person said to an interrupt, found in the outputs of a node.

    Whether it is a part of the talk or a mere yes, which button and form give as well, is for
    the node to say: the first becomes a message of the person.
    """
    said: list[HumanMessage] = []
    for message in asked_of(outputs) if run.resumed_by else []:
        if message.text in run.resumed_by:
            run.resumed_by.remove(str(message.text))
            said.append(message)
    return said


def shown_of(run: Run, outputs: Any) -> UUID | None:
    """The reply that a person was shown, found in the outputs of the run.

    Among the messages, by id or, where a node made one of its own of it, by text; a text of the
    state (a topic, a summary) is not what was shown where there are any. Then in whatever else
    there is, and where the outputs say nothing, the last reply that asked for no tool. A talk that
    ends by asking for one says that none was shown: others were guards', routers', summaries. One
    that asks for a tool is an answer where it is how the model fills in an agent's
    `response_format` (https://docs.langchain.com/oss/python/langchain/structured-output).
    """
    state = dict(outputs) if isinstance(outputs, Mapping) else {"messages": outputs}
    messages = _items(state.pop("messages", None))
    others = [item for value in state.values() for item in _items(value)]
    # A state may keep a schema that was filled in by an earlier run.
    filled_in = (
        state.get("structured_response") is not None
        and bool(messages)
        and isinstance(messages[-1], ToolMessage)
    )
    shown = chain(
        (_by_id(run, item, filled_in) or _by_text(run, item) for item in reversed(messages)),
        (_by_id(run, item) for item in reversed(others)),
        (_by_text(run, item) for item in reversed(others)),
    )
    last = messages[-1] if messages else None
    asks = isinstance(last, AIMessage) and bool(last.tool_calls)
    return next(filter(None, shown), None if asks else run.last_reply)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _by_id(run: Run, item: Any, filled_in: bool = False) -> UUID | None:
    if not isinstance(item, AIMessage) or not item.id or (item.tool_calls and not filled_in):
        return None
    return run.replies.get(item.id)


def _by_text(run: Run, item: Any) -> UUID | None:
    text = str(item.text) if isinstance(item, AIMessage) and not item.tool_calls else item
    return run.texts.get(text) if isinstance(text, str) and text else None
