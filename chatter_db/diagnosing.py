"""What the books will know of a model's calls: looked up, and by wish tried with one call."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from chatter_db.errors import ChatterError, UsageError
from chatter_db.recorder.endpoints import named, provider_asked
from chatter_db.recorder.pricing import cost_of
from chatter_db.recorder.probing import asked_once
from chatter_db.recorder.usage import Usage


@dataclass(frozen=True)
class Package:
    """A partner package of LangChain, by the name that init_chat_model has for its provider."""

    name: str
    model: str
    """Module and class of its chat model."""
    streams_usage: bool = False
    """Whether it passes on the usage of a stream without a setting for it."""


PACKAGES = {
    "anthropic": Package("langchain-anthropic", "langchain_anthropic.ChatAnthropic"),
    "azure_openai": Package("langchain-openai", "langchain_openai.AzureChatOpenAI"),
    "bedrock_converse": Package("langchain-aws", "langchain_aws.ChatBedrockConverse", True),
    "cohere": Package("langchain-cohere", "langchain_cohere.ChatCohere", True),
    "deepseek": Package("langchain-deepseek", "langchain_deepseek.ChatDeepSeek"),
    "fireworks": Package("langchain-fireworks", "langchain_fireworks.ChatFireworks"),
    "google_genai": Package(
        "langchain-google-genai", "langchain_google_genai.ChatGoogleGenerativeAI", True
    ),
    "google_vertexai": Package(
        "langchain-google-vertexai", "langchain_google_vertexai.ChatVertexAI", True
    ),
    "groq": Package("langchain-groq", "langchain_groq.ChatGroq", True),
    "mistralai": Package("langchain-mistralai", "langchain_mistralai.ChatMistralAI", True),
    "ollama": Package("langchain-ollama", "langchain_ollama.ChatOllama", True),
    "openai": Package("langchain-openai", "langchain_openai.ChatOpenAI"),
    "openrouter": Package("langchain-openrouter", "langchain_openrouter.ChatOpenRouter"),
    "perplexity": Package("langchain-perplexity", "langchain_perplexity.ChatPerplexity"),
    "together": Package("langchain-together", "langchain_together.ChatTogether"),
    "xai": Package("langchain-xai", "langchain_xai.ChatXAI"),
}

# Models that people name without their provider.
_KNOWN = (
    (r"gpt-|o\d|chatgpt-", "openai"),
    (r"claude", "anthropic"),
    (r"gemini", "google_genai"),
    (r"mistral|mixtral|codestral", "mistralai"),
    (r"deepseek", "deepseek"),
    (r"grok", "xai"),
    (r"command", "cohere"),
    (r"sonar", "perplexity"),
)

# Made up where a package insists on them; nobody is called.
_STAND_INS = {"api_key": "none", "azure_endpoint": "https://none.invalid", "api_version": "none"}


@dataclass
class Diagnosis:
    """What the books will know of a model's calls."""

    provider: str
    model: str
    package: str
    package_version: str | None
    booked_as: str
    """The provider in the books: who is asked, by the address, else by LangChain's name."""
    streams_usage: bool | None = None
    """Whether a streamed call reports usage as things are; None if that can't be told."""
    price_list: str | None = None
    unit_prices: Mapping[str, Any] | None = None
    """US dollars a million tokens, by genai-prices' names; None if the price isn't known."""
    priced_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    call: dict[str, Any] | None = None
    """What one real, streamed call reported; None if none was made."""
    problems: list[str] = field(default_factory=list)
    """What would be unknown in the books, and what to do about it."""


def parsed(name: str) -> tuple[str, str]:
    """Provider and model of a name such as openai:gpt-4o-mini. Raises UsageError."""
    provider, colon, model = name.strip().partition(":")
    provider = provider.lower().replace("-", "_")
    if colon and provider in PACKAGES and model.strip():
        return provider, model.strip()
    if not colon:
        for pattern, known in _KNOWN:
            if re.match(pattern, name.strip().lower()):
                return known, name.strip()
    raise UsageError(
        f"{name!r} names no model. Write provider:model, as in openai:gpt-4o-mini; "
        f"the providers are {', '.join(PACKAGES)}."
    )


def diagnose(name: str, *, base_url: str | None = None, call: bool = False) -> Diagnosis:
    """Looks up what the books will know of calls of the model `name`, served at `base_url`.

    With `call` it makes one, streamed, with the keys of the environment. Raises
    UsageError for a name that can't be read.
    """
    provider, model = parsed(name)
    package = PACKAGES[provider]
    try:
        installed = version(package.name)
    except PackageNotFoundError:
        installed = None
    booked_as = provider_asked(provider, base_url) or named(provider)
    found = Diagnosis(provider, model, package.name, installed, booked_as)
    if installed is not None:
        found.streams_usage = _streams_usage(package, model, base_url)
        if call:
            _call(found, package, base_url)
    _tell_of_streams(found, package)
    _look_up_price(found)
    return found


def _streams_usage(package: Package, model: str, base_url: str | None) -> bool | None:
    made = _class_of(package)
    fields: Mapping[str, Any] = made.model_fields
    if "stream_usage" not in fields:
        return True if package.streams_usage else None
    # The default depends on where the server is: the package itself knows.
    given = {"model": model} | ({"base_url": base_url} if base_url else {})
    try:
        ready = made(**{k: v for k, v in _STAND_INS.items() if _takes(made, k)}, **given)
    # Whatever a package may want besides: what it says of itself must do then.
    except Exception:  # noqa: BLE001
        return fields["stream_usage"].default is True
    return bool(ready.stream_usage)


def _tell_of_streams(found: Diagnosis, package: Package) -> None:
    if found.package_version is None:
        found.problems.append(
            f"{package.name} is not installed, so nothing can be said of streams: "
            f"pip install {package.name}"
        )
    elif found.streams_usage is None:
        found.problems.append(
            f"Whether {package.name} reports the usage of streams is not known here: "
            "try it with --call."
        )
    elif not found.streams_usage:
        found.problems.append(
            f"{package.model.rpartition('.')[2]} doesn't report the usage of streams as things "
            "are (by itself it asks for it only at the provider's own address): set "
            "stream_usage=True, and see that the server knows stream_options.include_usage. "
            "Until then streamed calls have usage_status 'unknown'."
        )


def _look_up_price(found: Diagnosis) -> None:
    least = Usage(prompt_tokens=1, completion_tokens=1)
    cost = cost_of(least, provider=found.booked_as, model=found.model, at=found.priced_at)
    if cost is None:
        found.problems.append(
            f"The price list doesn't know {found.booked_as} {found.model}: its calls have no cost "
            "and count in unpriced_calls, unless the provider states what it charged."
        )
        return
    found.price_list = cost.details.get("price_list")
    found.unit_prices = cost.details.get("unit_prices")


def _call(found: Diagnosis, package: Package, base_url: str | None) -> None:
    given = {"model": found.model} | ({"base_url": base_url} if base_url else {})
    try:
        usage = asked_once(_class_of(package)(**given))
    # Anything may go wrong between here and a provider; the user is told what.
    except Exception as error:  # noqa: BLE001
        raise ChatterError(
            f"The call of {found.provider} {found.model} failed: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
        ) from None
    found.call = {
        "usage_status": usage.status,
        **usage.counts,
        "usage": usage.raw,
    }
    # What was seen counts for more than what should be.
    found.streams_usage = usage.status != "unknown"
    if usage.malformed:
        found.problems.append("The call reported what can't be read: " + "; ".join(usage.notes))


def _class_of(package: Package) -> Any:
    module, _, name = package.model.rpartition(".")
    return getattr(import_module(module), name)


def _takes(made: Any, name: str) -> bool:
    return any(name in (key, field.alias) for key, field in made.model_fields.items())
