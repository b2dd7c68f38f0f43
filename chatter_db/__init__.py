"""True numbers for LLM chat products: Postgres keeps the books.

async with Chatter.connect() as chatter:
    run = chatter.recorder(conversation="support-42", user="ada")
    await graph.ainvoke(inputs, config={"callbacks": [run]})
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatter_db.errors import (
        ChatterError,
        DatabaseUnavailable,
        EmbeddedServerError,
        EventsPruned,
        ImportRejected,
        RecordingFailed,
        SchemaError,
        SignInBlocked,
        SignInRefused,
        UsageError,
    )
    from chatter_db.events import Event
    from chatter_db.ledger import (
        Chatter,
        close_default_chatter,
        create_conversation,
        default_chatter,
        install,
        uninstall,
    )
    from chatter_db.models import Conversation, Message, ToolCall, User, WorkflowExecution
    from chatter_db.monitoring import get_monitoring_service
    from chatter_db.recorder import Recorder
    from chatter_db.workflow import ChatResponse, execute_chat_workflow

__all__ = [
    "ChatResponse",
    "Chatter",
    "ChatterError",
    "Conversation",
    "DatabaseUnavailable",
    "EmbeddedServerError",
    "Event",
    "EventsPruned",
    "ImportRejected",
    "Message",
    "Recorder",
    "RecordingFailed",
    "SchemaError",
    "SignInBlocked",
    "SignInRefused",
    "ToolCall",
    "UsageError",
    "User",
    "WorkflowExecution",
    "close_default_chatter",
    "create_conversation",
    "default_chatter",
    "execute_chat_workflow",
    "get_monitoring_service",
    "install",
    "uninstall",
]

# Loaded when first asked for: the workflow needs LangGraph, which recording does
# not, and the command line needs neither it nor LangChain, which takes a second.
_ROOMS = ("errors", "events", "ledger", "models", "monitoring", "recorder", "workflow")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for room in _ROOMS:
            try:
                module = import_module(f"chatter_db.{room}")
            except ModuleNotFoundError as error:
                if room == "workflow":
                    error.add_note("It is of the extra server: install chatter-db[server].")
                raise
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
