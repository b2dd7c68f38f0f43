"""The chat workflow: a LangGraph graph whose history and books are in Postgres.

execute (or stream) -> graph -> nodes -> (tools, offline), read in that order.
"""

from chatter_db.workflow.execute import (
    ChatResponse,
    Prepared,
    execute_chat_workflow,
    prepare,
)
from chatter_db.workflow.graph import chat_graph
from chatter_db.workflow.nodes import ChatState, HistoryNode, ModelNode
from chatter_db.workflow.offline import OfflineChatModel
from chatter_db.workflow.stream import chunks_of, stream_chat_workflow
from chatter_db.workflow.tools import TOOLS

__all__ = [
    "TOOLS",
    "ChatResponse",
    "ChatState",
    "HistoryNode",
    "ModelNode",
    "OfflineChatModel",
    "Prepared",
    "chat_graph",
    "chunks_of",
    "execute_chat_workflow",
    "prepare",
    "stream_chat_workflow",
]
