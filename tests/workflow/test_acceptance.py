"""What the audit of the first backend asked for, on real Postgres and the real compiled graph."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from langchain_core.language_models import GenericFakeChatModel
from sqlalchemy import select

from chatter_db import (
    Chatter,
    Conversation,
    Message,
    UsageError,
    WorkflowExecution,
    close_default_chatter,
    create_conversation,
    execute_chat_workflow,
    get_monitoring_service,
)
from chatter_db.settings import settings
from chatter_db.workflow import OfflineChatModel
from tests.conftest import ONE_SERVER
from tests.polling import wait_until_blocked
from tests.providers.openai import Provider, Reply
from tests.recorder.test_recorder import model_of


@pytest.fixture
async def own_settings(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The process's own Chatter, on `url` by environment variable."""
    monkeypatch.setenv("CHATTER_DATABASE_URL", url)
    settings.cache_clear()
    yield
    await close_default_chatter()
    settings.cache_clear()


async def test_message_rows_have_their_token_fields(chatter: Chatter) -> None:
    response = await execute_chat_workflow("What is 6 * 7?", chatter=chatter)
    async with chatter.session() as db:
        message = await db.get(Message, response.message_id)
    assert message is not None
    assert message.prompt_tokens is not None and message.prompt_tokens > 0
    assert message.completion_tokens is not None and message.completion_tokens > 0
    assert message.cost is not None and message.cost > 0
    assert message.provider_used is not None
    assert message.content == response.content == "The calculate tool says: 42."


async def test_monitoring_sees_the_execution(chatter: Chatter) -> None:
    response = await execute_chat_workflow("What is 6 * 7?", chatter=chatter)
    monitoring = await get_monitoring_service(chatter)
    stats = await monitoring.get_workflow_stats()
    assert len(stats.workflow_ops) == stats.total == 1
    last = stats.workflow_ops[-1]
    assert last.token_usage == response.prompt_tokens + response.completion_tokens > 0
    assert (last.model_calls, last.tool_calls, last.status) == (2, 1, "completed")
    assert last.duration_ms is not None and last.duration_ms > 0
    assert stats.active == 0


async def test_three_turns_make_six_messages(
    chatter: Chatter, books_hold: Callable[[], None]
) -> None:
    conversation = await chatter.create_conversation(user="ada")
    for text in ("What is 6 * 7?", "What time is it?", "Thanks."):
        response = await execute_chat_workflow(
            text, conversation_id=conversation.id, user="ada", chatter=chatter
        )
    assert "message number 3" in response.content
    async with chatter.session() as db:
        booked = await db.get_one(Conversation, conversation.id)
    assert booked.message_count == 6
    assert booked.total_tokens > 0
    assert booked.total_cost > 0
    assert booked.unpriced_calls == 0
    books_hold()


@pytest.mark.usefixtures("own_settings")
async def test_without_a_chatter_the_processes_own_serves() -> None:
    conversation = await create_conversation(user="ada")
    response = await execute_chat_workflow("Hello", conversation_id=conversation.id)
    stats = await (await get_monitoring_service()).get_workflow_stats()
    assert stats.workflow_ops[-1].execution_id == response.execution_id
    assert stats.workflow_ops[-1].conversation_id == conversation.id
    assert stats.workflow_ops[-1].token_usage > 0


async def test_the_history_is_loaded_and_the_question_is_not_doubled(
    chatter: Chatter, provider: Provider
) -> None:
    conversation = await chatter.create_conversation()
    for _ in range(2):
        await execute_chat_workflow(
            "Same?", conversation_id=conversation.id, model=model_of(provider), chatter=chatter
        )
    sent = [(m["role"], m["content"]) for m in provider.requests[-1]["messages"]]
    assert sent == [("user", "Same?"), ("assistant", "All right."), ("user", "Same?")]


async def test_a_failing_model_fails_the_run_and_the_next_one_works(
    chatter: Chatter, provider: Provider
) -> None:
    conversation = await chatter.create_conversation()
    provider.script = [Reply(status=500), Reply("Here again.")]
    model = model_of(provider)
    with pytest.raises(Exception, match="scripted failure"):
        await execute_chat_workflow(
            "Hi", conversation_id=conversation.id, model=model, chatter=chatter
        )
    response = await execute_chat_workflow(
        "Hi", conversation_id=conversation.id, model=model, chatter=chatter
    )
    assert response.content == "Here again."
    async with chatter.session() as db:
        statuses = (await db.scalars(select(WorkflowExecution.status))).all()
        texts = (await db.scalars(select(Message.content).filter_by(role="assistant"))).all()
    assert sorted(statuses) == ["completed", "failed"]
    assert sorted(texts, key=str) == ["Here again.", None]


async def test_a_deleted_conversation_keeps_its_figures(chatter: Chatter) -> None:
    response = await execute_chat_workflow("Something private", chatter=chatter)
    assert await chatter.delete_conversation(response.conversation_id)
    assert not await chatter.delete_conversation(response.message_id)
    async with chatter.session() as db:
        conversation = await db.get_one(Conversation, response.conversation_id)
        contents = (await db.scalars(select(Message.content))).all()
    assert (conversation.status, conversation.message_count) == ("deleted", 2)
    assert conversation.total_tokens > 0
    assert set(contents) == {None}


async def test_an_id_may_be_text(chatter: Chatter) -> None:
    """As it comes out of a URL or a session of the host app."""
    made = await create_conversation(user="ada", chatter=chatter)
    text: Any = str(made.id)
    response = await execute_chat_workflow("Hi", conversation_id=text, chatter=chatter)
    assert response.conversation_id == made.id
    assert await chatter.delete_conversation(text)


async def test_wrong_arguments_are_named(chatter: Chatter) -> None:
    with pytest.raises(UsageError, match="message is empty"):
        await execute_chat_workflow("  ", chatter=chatter)
    stranger = (await execute_chat_workflow("Hi", chatter=chatter)).message_id
    with pytest.raises(UsageError, match="There is no conversation"):
        await execute_chat_workflow("Hi", conversation_id=stranger, chatter=chatter)
    own: Any = "support-42"
    with pytest.raises(UsageError, match="conversation_id must be a UUID, the id of the row"):
        await execute_chat_workflow("Hi", conversation_id=own, chatter=chatter)
    with pytest.raises(UsageError, match="conversation_id must be a UUID, the id of the row"):
        await chatter.delete_conversation(own)
    with pytest.raises(UsageError, match="acting_for must be a UUID, the id of the row"):
        async with chatter.session(acting_for=own):
            pass
    with pytest.raises(UsageError, match="Model 'nobody:nothing' can't be used"):
        await execute_chat_workflow("Hi", model="nobody:nothing", chatter=chatter)
    await chatter.create_conversation(external_id="one")
    with pytest.raises(UsageError, match="already a conversation 'one'"):
        await chatter.create_conversation(external_id="one")
    with pytest.raises(UsageError, match="limit must be from 1"):
        await (await get_monitoring_service(chatter)).get_workflow_stats(limit=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"message": 5}, "message must be a string, not int"),
        ({"message": b"Hi"}, "message must be a string, not bytes"),
        ({"model": 5}, "model must be a chat model, or the name of one .* not int"),
        ({"model": GenericFakeChatModel(messages=iter([]))}, "takes no tools.* tools="),
        ({"tools": "calc"}, "tools can't be used: "),
        ({"tools": 5}, "tools can't be used: "),
        ({"execution_id": "run-1"}, "execution_id must be a UUID"),
        ({"workflow": 5}, "workflow must be a string, not int"),
        ({"correlation_id": ""}, "correlation_id must have 1 to 500 characters"),
        ({"chatter": "postgresql://127.0.0.1/db"}, "chatter must be a Chatter, .* not str"),
    ],
)
@ONE_SERVER
async def test_what_can_not_be_asked_leaves_nothing(
    chatter: Chatter, db: psycopg.Connection[Any], arguments: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"message": "Hi", "chatter": chatter, **arguments}
    with pytest.raises(UsageError, match=message):
        await execute_chat_workflow(given.pop("message"), **given)
    assert db.execute("select count(*) from chatter.conversations").fetchone() == (0,)


async def test_a_model_without_tools_answers_without_them(chatter: Chatter) -> None:
    model = GenericFakeChatModel(messages=iter(["Hello."]))
    response = await execute_chat_workflow("Hi", model=model, tools=(), chatter=chatter)
    assert (response.content, response.cost) == ("Hello.", None)


async def test_what_is_no_chatter_is_refused() -> None:
    wrong: Any = "postgresql://127.0.0.1/db"
    for ask in (create_conversation, get_monitoring_service):
        with pytest.raises(UsageError, match=r"chatter must be a Chatter, .* not str"):
            await ask(chatter=wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": ""}, "user must have 1 to 500 characters"),
        ({"external_id": "x" * 501}, "external_id must have 1 to 500 .* it has 501"),
        ({"external_id": "\0"}, "external_id must have .* no NUL"),
        ({"title": "x" * 2001}, "title must have 0 to 2000 characters"),
        ({"title": "\ud800"}, "title must be UTF-8"),
        ({"metadata": {"a": object()}}, "metadata must be JSON"),
        ({"metadata": {"a": "\0"}}, "The conversation can't be booked"),
    ],
)
async def test_a_conversation_that_can_not_be(
    chatter: Chatter, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await chatter.create_conversation(**arguments)


@pytest.mark.parametrize("user", ["ada", None])
async def test_of_two_conversations_of_one_name_at_once_one_is_made(
    chatter: Chatter, db: psycopg.Connection[Any], user: str | None
) -> None:
    if user is not None:
        db.execute("insert into chatter.users (external_id) values (%s)", (user,))
    with db.transaction():
        db.execute(
            "insert into chatter.conversations (external_id, user_id) "
            "values ('one', (select id from chatter.users))"
        )
        making = asyncio.create_task(chatter.create_conversation(user=user, external_id="one"))
        await asyncio.to_thread(wait_until_blocked, db)
    with pytest.raises(UsageError, match="already a conversation 'one'"):
        await making


async def test_the_offline_model_streams_what_it_invokes() -> None:
    model = OfflineChatModel()
    whole = await model.ainvoke("How are you?")
    chunks = [chunk async for chunk in model.astream("How are you?")]
    merged = chunks[0]
    for chunk in chunks[1:]:
        merged = merged + chunk
    assert len(chunks) > 3
    assert merged.content == whole.content
    assert merged.usage_metadata == whole.usage_metadata
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["input_tokens"] == 4
