"""One turn of a conversation: question in, answer out, everything booked."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.uuid import uuid7
from langgraph.graph.state import CompiledStateGraph
from sqlalchemy import select

from chatter_db.errors import RecordingFailed, UsageError
from chatter_db.ledger import Chatter, chosen_chatter
from chatter_db.models import Conversation, Message, WorkflowExecution, known_cost
from chatter_db.recorder import Recorder, RunOutcome
from chatter_db.recorder.arguments import require_name, require_string, row_id
from chatter_db.settings import settings
from chatter_db.workflow.graph import chat_graph
from chatter_db.workflow.nodes import ChatState
from chatter_db.workflow.offline import OfflineChatModel
from chatter_db.workflow.tools import TOOLS


@dataclass(frozen=True)
class ChatResponse:
    """The answer, and where it stands in the books.

    Tokens and cost are the whole run's, tools and all; the answer's own are on
    its row `message_id`. The cost is None if no model call's is known.
    """

    content: str
    message_id: UUID
    conversation_id: UUID
    execution_id: UUID
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None


async def execute_chat_workflow(
    message: str,
    *,
    conversation_id: UUID | None = None,
    user: str | None = None,
    model: str | BaseChatModel | None = None,
    tools: Sequence[BaseTool] = TOOLS,
    workflow: str = "chat",
    correlation_id: str | None = None,
    execution_id: UUID | None = None,
    chatter: Chatter | None = None,
) -> ChatResponse:
    """Answers `message` with the chat graph, in the conversation given or a new one.

    `model` is a chat model, or the name of one such as `openai:gpt-4o-mini`;
    by default CHATTER_MODEL. `execution_id` is the run's id, by default a new UUIDv7.
    `chatter` is by default the process's own.

    Raises UsageError for an empty message, an unknown model or conversation, tools that the
    model can't take and any other argument that can't be used, RecordingFailed if the answer
    could not be booked, and whatever error the model raised; the books then show the failed
    run.
    """
    prepared = await prepare(
        message,
        conversation_id=conversation_id,
        user=user,
        model=model,
        tools=tools,
        workflow=workflow,
        correlation_id=correlation_id,
        execution_id=execution_id,
        chatter=chatter,
    )
    return await prepared.answer()


@dataclass
class Prepared:
    """A turn that is ready to run: the graph and its input, and the way to its rows."""

    graph: CompiledStateGraph[ChatState, Any, Any, Any]
    inputs: ChatState
    recorder: Recorder
    chatter: Chatter
    execution_id: UUID
    conversation_id: UUID
    began: bool = False
    """Whether it is in the recorder's hands, which books its end whatever comes."""

    def begin(self) -> RunnableConfig:
        """The config to run the graph with, at once."""
        self.began = True
        return {
            "callbacks": [self.recorder],
            "run_id": self.execution_id,
            "configurable": {
                "conversation_id": self.conversation_id,
                "execution_id": self.execution_id,
            },
        }

    async def answer(self) -> ChatResponse:
        """Runs it to its end."""
        async with self.booked():
            await self.graph.ainvoke(self.inputs, config=self.begin())
        return await self.response()

    @asynccontextmanager
    async def booked(self) -> AsyncIterator[None]:
        """Who hears how the run inside ended finds it so in the books, whatever the durability.

        Who was cancelled doesn't wait for that.
        """
        try:
            yield
        except Exception:
            await self.chatter.flush()
            raise
        await self.chatter.flush()

    async def response(self) -> ChatResponse:
        """What the run that just ended left in the books.

        Raises RecordingFailed if its answer is not there.
        """
        return await response_of(self.chatter, self.recorder.last_run)


async def prepare(
    message: str,
    *,
    conversation_id: UUID | None,
    user: str | None,
    model: str | BaseChatModel | None,
    tools: Sequence[BaseTool],
    workflow: str,
    correlation_id: str | None,
    chatter: Chatter | None,
    execution_id: UUID | None = None,
) -> Prepared:
    """Everything that can go wrong before a model is asked goes wrong here."""
    if not require_string("message", message).strip():
        raise UsageError("message is empty.")
    require_name("workflow", workflow)
    require_name("correlation_id", correlation_id)
    run_id = uuid7() if execution_id is None else row_id("execution_id", execution_id)
    chatter = await chosen_chatter(chatter)
    chat_model = model if isinstance(model, BaseChatModel) else chat_model_named(model)
    graph = _graph(chat_model, tools, chatter)
    if conversation_id is None:
        conversation_id = (await chatter.create_conversation(user=user)).id
    else:
        conversation_id = row_id("conversation_id", conversation_id)
        async with chatter.session() as session:
            if await session.get(Conversation, conversation_id) is None:
                raise UsageError(f"There is no conversation {conversation_id}.")
    run = chatter.recorder(
        conversation=conversation_id, user=user, workflow=workflow, correlation_id=correlation_id
    )
    return Prepared(
        graph=graph,
        inputs={"messages": [HumanMessage(message)]},
        recorder=run,
        chatter=chatter,
        execution_id=run_id,
        conversation_id=conversation_id,
    )


def _graph(
    model: BaseChatModel, tools: Sequence[BaseTool], chatter: Chatter
) -> CompiledStateGraph[ChatState, Any, Any, Any]:
    try:
        return chat_graph(model, tools, chatter)
    except NotImplementedError:
        # LangChain's, without a word.
        raise UsageError(f"{type(model).__name__} takes no tools; ask it with tools=().") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"tools can't be used: {error}") from error


def chat_model_named(name: str | None) -> BaseChatModel:
    """The chat model of that name, by default CHATTER_MODEL; `offline` needs no provider.

    Raises UsageError if LangChain knows no such model, or lacks its package or key.
    """
    name = name or settings().model
    if not isinstance(name, str):
        raise UsageError(
            "model must be a chat model, or the name of one such as openai:gpt-4o-mini; "
            f"not {type(name).__name__}."
        )
    if name == "offline":
        return OfflineChatModel()
    try:
        from langchain.chat_models import init_chat_model

        # stream_usage: OpenAI-compatible servers report no usage on streams unless asked.
        options: dict[str, Any] = {"stream_usage": True} if name.startswith("openai:") else {}
        model: BaseChatModel = init_chat_model(name, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"Model {name!r} can't be used: {error}") from error
    return model


async def response_of(chatter: Chatter, outcome: RunOutcome | None) -> ChatResponse:
    """The answer of a run and its figures, read from the books.

    Raises RecordingFailed if they don't have it.
    """
    async with chatter.session() as session:
        answer = await session.get(Message, outcome.message_id) if outcome else None
        if outcome is None or answer is None:
            raise RecordingFailed("The answer was given but could not be booked; see the log.")
        wanted = select(WorkflowExecution, known_cost())
        row = await session.execute(wanted.where(WorkflowExecution.id == outcome.execution_id))
        execution, cost = row.one()
        return ChatResponse(
            content=answer.content or "",
            message_id=answer.id,
            conversation_id=answer.conversation_id,
            execution_id=execution.id,
            prompt_tokens=execution.prompt_tokens,
            completion_tokens=execution.completion_tokens,
            cost=cost,
        )
