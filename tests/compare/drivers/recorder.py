"""Calls an offline model with a recorder of chatter-db attached: a commit a call is waited for."""

import argparse
import asyncio
from contextlib import ExitStack
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda

from chatter_db import Chatter
from tests.compare.drivers.driving import Driver, drive
from tests.compare.workload import Call

AT_ONCE = 50
"""Calls that are under way at any time, as in a server of many chats."""


class Offline(BaseChatModel):
    """Answers at once what it is told to, with usage. The recorder finds the price."""

    call: Any

    @property
    def _llm_type(self) -> str:
        return "offline"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=answer_of(self.call))])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)


def answer_of(call: Call) -> AIMessage:
    return AIMessage(
        call.answer,
        usage_metadata={
            "input_tokens": call.prompt_tokens,
            "output_tokens": call.completion_tokens,
            "total_tokens": call.total_tokens,
        },
        response_metadata={"model_name": call.model, "model_provider": call.provider},
    )


class RecorderDriver(Driver):
    def __init__(self, address: str) -> None:
        self._stack = ExitStack()
        self._chatter = self._stack.enter_context(Chatter.connect(address))

    def book(self, call: Call) -> int:
        Offline(call=call).invoke("How is it?", self._config(call))
        return 1

    def book_all(self, calls: list[Call]) -> None:
        asyncio.run(self._together(calls))

    async def _together(self, calls: list[Call]) -> None:
        free = asyncio.Semaphore(AT_ONCE)

        async def ask(call: Call) -> None:
            async with free:
                await Offline(call=call).ainvoke("How is it?", self._config(call))

        await asyncio.gather(*map(ask, calls))

    def finish(self) -> int:
        return 0

    def deliver_twice(self, call: Call) -> None:
        """LangChain tells each handler once: the closest to it is a handler attached twice."""
        config = self._config(call)
        recorder = config["callbacks"]
        assert isinstance(recorder, list)
        config["callbacks"] = recorder * 2
        Offline(call=call).invoke("How is it?", config)

    def repeat(self, agent: Call, children: list[Call]) -> None:
        """An agent whose reply carries the usage of the calls that it made."""

        def answer(question: str, config: RunnableConfig) -> AIMessage:
            for child in children:
                Offline(call=child).invoke(question, config)
            return answer_of(agent)

        RunnableLambda(answer).invoke("How is it?", self._config(agent))

    def close(self) -> None:
        self._stack.close()

    def _config(self, call: Call) -> RunnableConfig:
        recorder = self._chatter.recorder(conversation=call.conversation, user=call.user)
        return {"callbacks": [recorder]}


def make(options: argparse.Namespace) -> Driver:
    return RecorderDriver(options.address)


if __name__ == "__main__":
    drive(make)
