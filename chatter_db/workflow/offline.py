"""A chat model without a provider: for the demonstration, tests, and a first try.

It is no language model. It computes arithmetic and tells the time by calling the
tools it was given, and otherwise says what it heard. What it reports is honest:
the tokens it counts are the ones it read and wrote, by its own tokenizer.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.uuid import uuid7

MODEL_NAME = "offline-1"

# What the model charges, in US dollars per token. It is a play tariff, stated in
# every answer as a paid provider would, so that the books have money to keep.
PROMPT_PRICE = Decimal("0.000001")
COMPLETION_PRICE = Decimal("0.000002")

_TOKEN = re.compile(r"\w+|[^\w\s]")
# It begins where a run of signs or a number does, and takes each whole: to try it within one, from
# every place to its end, would take minutes for a long message.
_ARITHMETIC = re.compile(
    r"(?:(?<![-+(])[-+(]++|(?<!\d)(?<!\d\.))\d++(?:\.\d*+)?+(?:\s*+[-+*/%]\s*+[-+(]*+\d[\d.)]*+)+"
)
_TIME = re.compile(r"\b(time|date|day|today|now)\b", re.IGNORECASE)


def count_tokens(text: str) -> int:
    """Tokens of `text`: words and single punctuation marks."""
    return len(_TOKEN.findall(text))


class OfflineChatModel(BaseChatModel):
    """The offline chat model; `delay` seconds pass before it answers."""

    delay: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "chatter-offline"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(
            ls_provider="offline", ls_model_name=MODEL_NAME, ls_model_type="chat"
        )

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        names = [convert_to_openai_tool(tool)["function"]["name"] for tool in tools]
        return self.bind(tool_names=names, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        tool_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> ChatResult:
        merged: AIMessageChunk | None = None
        for chunk in self._answer(messages, tool_names):
            merged = chunk if merged is None else merged + chunk
        assert merged is not None
        message = AIMessage(
            content=merged.content,
            tool_calls=merged.tool_calls,
            usage_metadata=merged.usage_metadata,
            response_metadata=merged.response_metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        tool_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for message in self._answer(messages, tool_names):
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                run_manager.on_llm_new_token(str(message.text), chunk=chunk)
            yield chunk

    def _answer(
        self, messages: Sequence[BaseMessage], tool_names: Sequence[str]
    ) -> Iterator[AIMessageChunk]:
        time.sleep(self.delay)
        request = _tool_request(messages, tool_names)
        if request is not None:
            name, arguments = request
            yield AIMessageChunk(
                content="",
                tool_call_chunks=[
                    tool_call_chunk(name=name, args=arguments, id=f"call_{uuid7().hex}", index=0)
                ],
            )
            written = f"{name} {arguments}"
        else:
            written = _reply(messages)
            for word in re.findall(r"\S+\s*", written):
                yield AIMessageChunk(content=word)
        yield _closing(messages, written, "tool_calls" if request else "stop")


def _closing(messages: Sequence[BaseMessage], written: str, reason: str) -> AIMessageChunk:
    prompt = sum(count_tokens(_read(message)) for message in messages)
    completion = count_tokens(written)
    cost = prompt * PROMPT_PRICE + completion * COMPLETION_PRICE
    return AIMessageChunk(
        content="",
        usage_metadata=UsageMetadata(
            input_tokens=prompt, output_tokens=completion, total_tokens=prompt + completion
        ),
        response_metadata={
            "model_name": MODEL_NAME,
            "model_provider": "offline",
            "finish_reason": reason,
            "token_usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
                "cost": str(cost),
            },
        },
        chunk_position="last",
    )


def _read(message: BaseMessage) -> str:
    """All of `message` that the model reads, the tool calls of earlier replies included."""
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return " ".join([str(message.text), *(f"{c['name']} {c['args']}" for c in calls)])


def _tool_request(
    messages: Sequence[BaseMessage], tool_names: Sequence[str]
) -> tuple[str, str] | None:
    """Which tool the last message asks for, with its arguments as JSON."""
    last = messages[-1] if messages else None
    if not isinstance(last, HumanMessage):
        return None
    text = str(last.text)
    expression = _ARITHMETIC.search(text)
    if expression and "calculate" in tool_names:
        return "calculate", f'{{"expression": "{expression.group().strip()}"}}'
    if _TIME.search(text) and "current_time" in tool_names:
        return "current_time", "{}"
    return None


def _reply(messages: Sequence[BaseMessage]) -> str:
    last = messages[-1] if messages else HumanMessage("")
    if isinstance(last, ToolMessage):
        return f"The {last.name or 'tool'} tool says: {last.text}."
    turns = sum(isinstance(message, HumanMessage) for message in messages)
    heard = count_tokens(str(last.text))
    return (
        f"I am the offline model, and this is your message number {turns} here: "
        f"{heard} tokens. Ask me for a sum or the time, or set CHATTER_MODEL to a real model."
    )
