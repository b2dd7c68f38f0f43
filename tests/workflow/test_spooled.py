"""The chat workflow where recorded calls don't wait for their commit: it does, at its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from langchain_core.messages import HumanMessage

from chatter_db import Chatter, Conversation, RecordingFailed, execute_chat_workflow
from chatter_db.recorder import connection, writer
from chatter_db.settings import settings
from chatter_db.workflow import ChatResponse, stream_chat_workflow
from tests.polling import until, wait_until_blocked
from tests.providers.openai import Provider, Reply
from tests.recorder.test_recorder import agent, model_of


@pytest.fixture
async def spooling(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Chatter]:
    """The books at `url`, with CHATTER_DURABILITY=spool."""
    monkeypatch.setenv("CHATTER_DURABILITY", "spool")
    settings.cache_clear()
    async with Chatter.connect(url) as opened:
        yield opened
        assert opened.lost_records == 0


@pytest.fixture
async def conversation(spooling: Chatter) -> Conversation:
    return await spooling.create_conversation(user="ada")


def lock(db: psycopg.Connection[Any]) -> None:
    """Nothing is booked into a conversation until the transaction ends."""
    db.execute("select chatter.lock_conversations(id) from chatter.conversations")


async def test_an_answer_is_in_the_books_when_it_is_given(
    spooling: Chatter, db: psycopg.Connection[Any], conversation: Conversation
) -> None:
    with db.transaction():
        lock(db)
        answering = asyncio.create_task(
            execute_chat_workflow("Hi", conversation_id=conversation.id, chatter=spooling)
        )
        await asyncio.to_thread(wait_until_blocked, db)
    response = await answering
    assert db.execute(
        "select kind, status from chatter.messages where id = %s", (response.message_id,)
    ).fetchall() == [("turn", "completed")]
    assert response.prompt_tokens > 0


async def test_the_turn_before_is_part_of_the_history(
    spooling: Chatter,
    db: psycopg.Connection[Any],
    provider: Provider,
    conversation: Conversation,
    books_hold: Callable[[], None],
) -> None:
    with db.transaction():
        lock(db)
        await agent(model_of(provider)).ainvoke(
            {"messages": [HumanMessage("First")]},
            config={"callbacks": [spooling.recorder(conversation=conversation.id)]},
        )
        answering = asyncio.create_task(
            execute_chat_workflow(
                "Second",
                conversation_id=conversation.id,
                model=model_of(provider),
                chatter=spooling,
            )
        )
        await asyncio.to_thread(wait_until_blocked, db)
    await answering
    sent = [message["content"] for message in provider.requests[-1]["messages"]]
    assert sent == ["First", "All right.", "Second"]
    books_hold()


async def test_a_streamed_answer_is_in_the_books_too(
    spooling: Chatter, db: psycopg.Connection[Any], provider: Provider, conversation: Conversation
) -> None:
    def answer(_: dict[str, Any]) -> Reply:
        locking.execute("begin")
        lock(locking)
        return Reply("Hello.")

    async def last() -> Any:
        *_, chunk = [
            chunk
            async for chunk in stream_chat_workflow(
                "Hi", conversation_id=conversation.id, model=model_of(provider), chatter=spooling
            )
        ]
        return chunk

    with psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True) as locking:
        provider.answer = answer
        answering = asyncio.create_task(last())
        await asyncio.to_thread(wait_until_blocked, locking)
        locking.execute("rollback")
    response = await answering
    assert isinstance(response, ChatResponse)
    assert (response.content.strip(), response.prompt_tokens) == ("Hello.", 10)


async def test_a_failed_run_is_in_the_books_when_its_error_is_raised(
    spooling: Chatter, db: psycopg.Connection[Any], provider: Provider, conversation: Conversation
) -> None:
    def fail(_: dict[str, Any]) -> Reply:
        locking.execute("begin")
        lock(locking)
        return Reply(status=500)

    with psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True) as locking:
        provider.answer = fail
        answering = asyncio.create_task(
            execute_chat_workflow(
                "Hi", conversation_id=conversation.id, model=model_of(provider), chatter=spooling
            )
        )
        await asyncio.to_thread(wait_until_blocked, locking)
        locking.execute("rollback")
    with pytest.raises(Exception, match="scripted failure"):
        await answering
    assert db.execute("select status from chatter.workflow_executions").fetchall() == [("failed",)]


async def test_while_nothing_can_be_booked_it_says_so(
    spooling: Chatter,
    db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    conversation: Conversation,
) -> None:
    """As with CHATTER_DURABILITY=database."""
    monkeypatch.setattr(writer, "ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(writer, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(writer, "RETRY_FOR_SECONDS", 0.2)
    monkeypatch.setattr(connection, "CANCEL_SECONDS", 0.3)
    with db.transaction():
        lock(db)
        with pytest.raises(RecordingFailed, match="could not be booked"):
            await execute_chat_workflow("Hi", conversation_id=conversation.id, chatter=spooling)
    # Not by flush(): it waits no longer than these fractions of a second either.
    booked = (
        "select from chatter.workflow_executions where (status, model_calls) = ('completed', 1)"
    )
    await until(lambda: db.execute(booked).fetchall(), "the run is booked")


async def test_the_conversation_of_a_run_is_known_where_it_can_be(
    spooling: Chatter, provider: Provider, conversation: Conversation
) -> None:
    for given in (conversation.id, None):
        run = spooling.recorder(conversation=given)
        await agent(model_of(provider)).ainvoke(
            {"messages": [HumanMessage("Hi")]}, config={"callbacks": [run]}
        )
        await spooling.flush()
        assert run.last_run is not None
        async with spooling.session() as session:
            booked = await session.get(Conversation, run.last_run.conversation_id)
        assert booked is not None and booked.message_count == 2
