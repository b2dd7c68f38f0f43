"""Who answers at the address a model was given.

DeepSeek, Groq, Moonshot, OpenRouter, Together, xAI and many more speak OpenAI's protocol or
Anthropic's, and are asked through `ChatOpenAI(base_url=...)` or `ChatAnthropic(base_url=...)`.
LangChain calls the provider `openai` or `anthropic` all the same; who charges for the call is
known by the address alone. genai-prices knows the addresses.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from genai_prices.data_snapshot import get_snapshot


@dataclass(frozen=True)
class _Protocol:
    """How a package is told another address: by an argument, else by the environment."""

    argument: str
    variables: tuple[str, ...]


# By LangChain's name of the provider.
_PROTOCOLS = {
    "openai": _Protocol("openai_api_base", ("OPENAI_API_BASE", "OPENAI_BASE_URL")),
    "anthropic": _Protocol("anthropic_api_url", ("ANTHROPIC_API_URL", "ANTHROPIC_BASE_URL")),
}

PLACE = "data_residency"
"""What pricing calls the place that an address keeps a call in."""

_PLACED = re.compile(r"^https://([a-z]{2})\.api\.openai\.com(?:[:/]|$)")

# What the recorder books has one name for a provider, that of its own LangChain package. Some
# packages have one for the question and others for the answers, and a call that failed has none.
_NAMES = {
    "anthropic-bedrock": "amazon_bedrock",
    "anthropic-mantle": "amazon_bedrock",
    "anthropicvertex": "google_vertexai",
    "azure_openai": "azure",
    "bedrock": "amazon_bedrock",
    "bedrock_converse": "amazon_bedrock",
    "google": "google_genai",
    "mistral": "mistralai",
    "openai-mantle": "amazon_bedrock",
    "x-ai": "xai",
}


def url_given(model: Mapping[str, Any] | None) -> str | None:
    """The address that a model was made with; `model` is what callbacks get as `serialized`."""
    arguments = (model or {}).get("kwargs") or {}
    urls = (arguments.get(protocol.argument) for protocol in _PROTOCOLS.values())
    return next((url for url in urls if isinstance(url, str)), None)


def provider_asked(provider: str | None, url: str | None) -> str | None:
    """The provider at `url`, else at the environment's; None if the address is no known one.

    `provider` is the one that LangChain names: only the packages of OpenAI and Anthropic are
    pointed at others.
    """
    address = _address(provider, url)
    return _provider_at(address) if address else None


def place_asked(provider: str | None, url: str | None) -> str | None:
    """Where a call has to stay: OpenAI has an address for each such place."""
    placed = _PLACED.match(_address(provider, url) or "")
    return placed[1] if placed else None


def _address(provider: str | None, url: str | None) -> str | None:
    protocol = _PROTOCOLS.get(provider) if provider else None
    if protocol is None:
        return None
    return url or next(filter(None, map(os.environ.get, protocol.variables)), None)


def named(provider: str) -> str:
    """The books' name of `provider`."""
    return _NAMES.get(provider, provider)


def provider_packaged(provider: str | None, model: Mapping[str, Any] | None) -> str | None:
    """The provider that LangChain names, if the package of the model is that one's own.

    What it says is its own word then, also where it builds on OpenAI's: ChatUpstage's answers
    are by `openai`.
    """
    path = (model or {}).get("id")
    package = path[0] if isinstance(path, list) and path else None
    own = provider not in _PROTOCOLS and package == f"langchain_{provider}"
    return provider if own else None


@lru_cache(maxsize=256)
def provider_answering(asked: str | None, stated: str | None) -> str | None:
    """Who answered, where LangChain says that `asked` was asked and the answer states `stated`.

    A package that builds on OpenAI's or Anthropic's states that one's name: AzureChatOpenAI's
    answers are by `openai`. Other names are the package's own word, whoever wraps its model.
    """
    if not asked or stated not in _PROTOCOLS:
        answered = stated or asked
        return named(answered) if answered else None
    if asked in _NAMES:
        return named(asked)
    try:
        known = get_snapshot().find_provider(None, asked, None).id
    except LookupError:
        return stated
    return stated if known == stated else asked


@lru_cache(maxsize=256)
def _provider_at(url: str) -> str | None:
    try:
        found = get_snapshot().find_provider(None, None, url).id
    except LookupError:
        return None
    return named(found)
