"""Tokens by rule of thumb, where a provider states none and the host app asked for that.

LangChain's own rule: a token for every four characters, and a few for every
message. It needs no tokenizer, and is good to some ten percent for English text,
worse for code and other languages: it is marked, and never priced.
"""

from collections.abc import Sequence
from dataclasses import replace

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from chatter_db.models import MAX_TOKENS
from chatter_db.recorder.usage import Usage


def estimated(usage: Usage, question: Sequence[BaseMessage], answer: AIMessage) -> Usage:
    """`usage`, which states nothing, with the counts of what was sent and of what came."""
    prompt = min(count_tokens_approximately(question), MAX_TOKENS)
    completion = min(count_tokens_approximately([answer]), MAX_TOKENS)
    return replace(
        usage,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        estimated=True,
    )
