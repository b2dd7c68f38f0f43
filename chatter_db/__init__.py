"""True numbers for LLM chat products: Postgres keeps the books.

async with Chatter.connect() as chatter:
    run = chatter.recorder(conversation="support-42", user="ada")
    await graph.ainvoke(inputs, config={"callbacks": [run]})
"""

from typing import TYPE_CHECKING, Any

from chatter_db.errors import (
    ChatterError,
    DatabaseUnavailable,
    EmbeddedServerError,
    ImportRejected,
    RecordingFailed,
    SchemaError,
    UsageError,
)
from chatter_db.ledger import Chatter, close_default_chatter, default_chatter
from chatter_db.models import Conversation, Message, ToolCall, User, WorkflowExecution
from chatter_db.monitoring import get_monitoring_service
from chatter_db.recorder import Recorder

if TYPE_CHECKING:
    from chatter_db.workflow import ChatResponse, execute_chat_workflow

__all__ = [
    "ChatResponse",
    "Chatter",
    "ChatterError",
    "Conversation",
    "DatabaseUnavailable",
    "EmbeddedServerError",
    "ImportRejected",
    "Message",
    "Recorder",
    "RecordingFailed",
    "SchemaError",
    "ToolCall",
    "UsageError",
    "User",
    "WorkflowExecution",
    "close_default_chatter",
    "default_chatter",
    "execute_chat_workflow",
    "get_monitoring_service",
]


def __getattr__(name: str) -> Any:
    """The chat workflow on demand: it needs LangGraph, which recording does not."""
    if name in {"ChatResponse", "execute_chat_workflow"}:
        from chatter_db import workflow

        return getattr(workflow, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
