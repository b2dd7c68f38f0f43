"""Says once what to do about a model that streams and reports no usage."""

import logging

from langchain_core.messages import AIMessage

from chatter_db.recorder.runs import ModelCall
from chatter_db.recorder.usage import Usage

log = logging.getLogger(__name__)

# Who asks OpenAI's protocol for usage only when told to, by their names in `ls_provider`.
_ASK_WHEN_TOLD = frozenset({"openai", "azure", "azure_openai"})

_MAX_TOLD = 1000
_told: set[tuple[str | None, str | None]] = set()


def tell_of_unreported_usage(call: ModelCall, message: AIMessage, usage: Usage) -> None:
    """Warns, once per process and model, of a finished stream without usage."""
    if usage.status != "unknown" or call.first_token is None:
        return
    model = str(message.response_metadata.get("model_name") or call.model)[:200]
    key = (call.provider, model)
    if key in _told or len(_told) >= _MAX_TOLD:
        return
    _told.add(key)
    if call.provider in _ASK_WHEN_TOLD:
        advice = (
            "Set stream_usage=True on the model (ChatOpenAI asks for usage by itself only when "
            "no base URL is set), and see that the server knows stream_options.include_usage."
        )
    else:
        advice = f"`chatter doctor {call.provider}:{model}` says what can be done."
    log.warning(
        "%s model %s streamed an answer and reported no usage: its tokens are unknown in the "
        "books, and so is their cost. %s",
        call.provider,
        model,
        advice,
    )
