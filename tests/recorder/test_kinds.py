"""Kinds of models and tools that are few: each has its row all the same."""

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from langchain.agents import create_agent
from langchain_core.tools import ToolException, tool
from langchain_openai import OpenAI
from pydantic import SecretStr

from chatter_db import Chatter, ToolCall
from chatter_db import WorkflowExecution as Execution
from tests.conftest import ONE_SERVER
from tests.providers.openai import Provider, Reply
from tests.recorder.test_recorder import ainvoke, model_of, only, rows

pytestmark = ONE_SERVER


async def test_a_tool_that_answers_that_it_failed(chatter: Chatter, provider: Provider) -> None:
    @tool
    def refund(order: str) -> str:
        """Pays back."""
        raise ToolException(f"There is no order {order}.")

    refund.handle_tool_error = True
    provider.script = [Reply(tools=(("refund", {"order": "7"}),)), Reply("I can't.")]
    await ainvoke(create_agent(model_of(provider), [refund]), chatter.recorder())
    call: ToolCall = await only(chatter, ToolCall)
    told = (call.status, call.error_type, call.error_message)
    assert told == ("failed", "ToolError", "There is no order 7.")
    assert (await only(chatter, Execution)).status == "completed"


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_model_that_completes_a_text(
    chatter: Chatter, provider: Provider, streaming: bool
) -> None:
    """One that is no chat model: OpenAI's older protocol, and whoever speaks it."""
    provider.script = [Reply("and a cat.", prompt_tokens=7, completion_tokens=3)]
    model = OpenAI(
        model="gpt-3.5-turbo-instruct",
        base_url=provider.base_url,
        api_key=SecretStr("test"),
        max_retries=0,
        streaming=streaming,
    )
    run = chatter.recorder()
    told = await model.ainvoke("A dog", config={"callbacks": [run]})
    assert told.strip() == "and a cat."
    asked, answer = await rows(chatter)
    assert (asked.content, answer.content, answer.kind) == ("A dog", told, "turn")
    assert (answer.provider_used, answer.model_used) == ("openai", "gpt-3.5-turbo-instruct")
    used = None if streaming else 7, None if streaming else 3
    assert (answer.prompt_tokens, answer.completion_tokens) == used
    assert (await only(chatter, Execution)).status == "completed"


async def test_a_model_alone_in_an_unknown_conversation(
    url: str, db: psycopg.Connection[Any], provider: Provider
) -> None:
    """Its run begins with its call, which is booked though the run's start is refused."""
    unknown = uuid4()
    async with Chatter.connect(url) as chatter:
        run = chatter.recorder(conversation=unknown)
        await model_of(provider).ainvoke("Hi", config={"callbacks": [run]})
        assert chatter.lost_records == 2
    booked = "select conversation_id, role, prompt_tokens from chatter.messages"
    assert db.execute(booked).fetchall() == [(unknown, "assistant", 10)]
