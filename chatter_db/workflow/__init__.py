"""The chat workflow: a LangGraph graph whose history and books are in Postgres.

execute (or stream) -> graph -> nodes -> (tools, offline), read in that order.
"""

from chatter_db.workflow.execute import ChatResponse, execute_chat_workflow
from chatter_db.workflow.graph import chat_graph
from chatter_db.workflow.nodes import ChatState, HistoryNode, ModelNode
from chatter_db.workflow.offline import OfflineChatModel
from chatter_db.workflow.stream import stream_chat_workflow

__all__ = [
    "ChatResponse",
    "ChatState",
    "HistoryNode",
    "ModelNode",
    "OfflineChatModel",
    "chat_graph",
    "execute_chat_workflow",
    "stream_chat_workflow",
]
