"""One small real call, read as the recorder reads every call."""

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, LLMResult

from chatter_db.recorder import usage as usage_of
from chatter_db.recorder.usage import Usage

QUESTION = "Reply with the word OK."


def asked_once(model: Any) -> Usage:
    """The usage of a streamed call of the chat model `model`; raises what the call raises."""
    listener = Listener()
    for _ in model.stream(QUESTION, config={"callbacks": [listener]}):
        pass
    return listener.usage


class Listener(BaseCallbackHandler):
    """Hears of a call what the recorder hears of it."""

    def __init__(self) -> None:
        self.chunks: list[AIMessageChunk] = []
        self.result: LLMResult | None = None

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        if isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessageChunk):
            self.chunks.append(chunk.message)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.result = response

    @property
    def usage(self) -> Usage:
        if self.result is None:
            return usage_of.of_chunks(self.chunks)
        return usage_of.of_result(self.result, self.chunks)
