"""The chat graph: history, then model and tools in a loop, until the model answers."""

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from chatter_db.ledger import Chatter
from chatter_db.workflow.nodes import ChatState, HistoryNode, ModelNode


def chat_graph(
    model: BaseChatModel, tools: Sequence[BaseTool], chatter: Chatter
) -> CompiledStateGraph[ChatState, Any, Any, Any]:
    """The compiled graph; its input is the new message, see `HistoryNode` for its config."""
    graph = StateGraph(ChatState)
    graph.add_node("history", HistoryNode(chatter))
    graph.add_node("model", ModelNode(model, tools))
    graph.add_edge(START, "history")
    graph.add_edge("history", "model")
    if tools:
        graph.add_node("tools", ToolNode(tools))
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
    else:
        graph.add_edge("model", END)
    return graph.compile(name="chat")
