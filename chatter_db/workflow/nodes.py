"""The nodes of the chat graph."""

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.graph.message import add_messages
from sqlalchemy import select

from chatter_db.ledger import Chatter
from chatter_db.models import Message

HISTORY_TURNS = 50
"""Turns of a conversation that the model is shown, at most."""


class ChatState(TypedDict):
    """What flows through the graph. A key that isn't named here is dropped by LangGraph."""

    history: NotRequired[list[AnyMessage]]
    messages: Annotated[list[AnyMessage], add_messages]


class HistoryNode:
    """Loads the conversation's earlier turns from the books.

    Reads `conversation_id` and `execution_id` from the config's `configurable`.
    """

    def __init__(self, chatter: Chatter) -> None:
        self._chatter = chatter

    async def __call__(self, state: ChatState, config: RunnableConfig) -> dict[str, Any]:
        run = config["configurable"]
        turns = (
            select(Message)
            .where(
                Message.conversation_id == run["conversation_id"],
                # This run's question is booked already, and comes as input.
                Message.execution_id.is_distinct_from(run["execution_id"]),
                Message.kind == "turn",
                Message.status == "completed",
                Message.role.in_(["user", "assistant"]),
                Message.content.is_not(None),
            )
            .order_by(Message.created_at.desc(), Message.id.desc())
            .limit(HISTORY_TURNS)
        )
        # The turn before may be on its way there.
        await self._chatter.flush()
        async with self._chatter.session() as session:
            rows = (await session.scalars(turns)).all()
        return {"history": [_message(row) for row in reversed(rows)]}


class ModelNode:
    """Calls the model and hands its reply on as it is, usage and all."""

    def __init__(self, model: BaseChatModel, tools: Sequence[BaseTool]) -> None:
        self._model = model.bind_tools(tools) if tools else model

    async def __call__(self, state: ChatState, config: RunnableConfig) -> dict[str, Any]:
        reply = await self._model.ainvoke([*state.get("history", []), *state["messages"]], config)
        return {"messages": [reply]}


def _message(row: Message) -> AnyMessage:
    content = row.content or ""
    return HumanMessage(content) if row.role == "user" else AIMessage(content)
