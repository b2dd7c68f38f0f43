"""An answer that came, and was billed, but that the package would not take apart.

With a schema to answer in (`with_structured_output`) the openai package checks an answer before
LangChain sees it, and raises for one that was cut off, filtered, or refused by a validator of
your own. What LangChain's handlers get then is a message without a text, whose metadata has the
body of the response.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage


def unparsed(message: AIMessage) -> AIMessage:
    """`message` of a failed call, or the answer in its metadata: text, usage, model and tier."""
    body = message.response_metadata.get("body")
    if not isinstance(body, Mapping) or not isinstance(body.get("usage"), Mapping):
        return message
    choices, output = _objects(body.get("choices")), _objects(body.get("output"))
    return AIMessage(
        "".join(_texts(choices, output)),
        # What the provider's own tools did for a call is part of its price.
        additional_kwargs={"tool_outputs": output},
        response_metadata={
            "token_usage": body["usage"],
            "model_name": body.get("model"),
            "service_tier": body.get("service_tier"),
            "finish_reason": choices[0].get("finish_reason") if choices else body.get("status"),
        },
    )


def _texts(
    choices: Sequence[Mapping[str, Any]], output: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Of a chat completion's choice, or of a response's output."""
    said = [choice.get("message") for choice in choices[:1]]
    parts = [part for item in output for part in _objects(item.get("content"))]
    for one, name in [*((each, "content") for each in said), *((each, "text") for each in parts)]:
        text = one.get(name) if isinstance(one, Mapping) else None
        if isinstance(text, str):
            yield text


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
