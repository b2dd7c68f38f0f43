"""What a model call cost: as the provider stated it, else by the price list of its day."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import genai_prices
from genai_prices.types import ModelInfo, ModelPrice, PriceCalculation, TieredPrices

from chatter_db.models import CostSource
from chatter_db.recorder.endpoints import PLACE
from chatter_db.recorder.usage import Usage
from chatter_db.recorder.usage.counts import BILLED_BESIDE, LONG_WRITES, SPEECH, added
from chatter_db.recorder.usage.server_tools import IMAGES

# genai-prices names providers by their own names, LangChain and LiteLLM by their packages'.
# What is missing here it finds itself; azure_openai it would take for openai.
PROVIDERS = {
    "azure_openai": "azure",
    "azure-openai": "azure",
    "azure_ai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "amazon_bedrock": "aws",
    "anthropic_bedrock": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "google_anthropic_vertex": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "google-genai": "google",
    "mistralai": "mistral",
    "together": "together-ai",
    "together_ai": "together-ai",
    "vertex_ai": "google",
    "xai": "x-ai",
}

# Terms at which a call costs what the list says without any: everybody's usual one.
_USUAL = frozenset({"auto", "default", "on_demand", "standard"})

_UNLISTED = BILLED_BESIDE | {IMAGES, LONG_WRITES}

# What the list would leave out where it has no price for it; other kinds cost as tokens do.
_OWN_PRICES = (
    ("input_tokens", "input_mtok"),
    ("output_tokens", "output_mtok"),
    ("cache_write_1h_tokens", "cache_write_1h_mtok"),
    ("storage_searches", "storage_searches_kcount"),
    ("web_searches", "web_searches_kcount"),
)

# Said to be 0 because genai-prices looks long for what it has a price of and is told nothing of.
# Not of counts that have others as parts: it has to refuse a part whose whole is unknown.
_NONE = {"cache_write_1h_tokens": 0, "storage_searches": 0, "web_searches": 0}

# OpenAI's audio costs many times what its text does; Google's may cost the same.
_DEAR_AUDIO = (
    ("input_audio_tokens", "input_audio_mtok"),
    ("output_audio_tokens", "output_audio_mtok"),
)
_SELL_OPENAI = frozenset({"azure", "openai", "openrouter"})

# OpenAI's models since March 2026 cost a tenth more where a call has to stay in one place:
# https://developers.openai.com/api/docs/guides/data-residency
_DEARER_IN_PLACE = re.compile(r"^gpt-(5\.([4-9]|\d\d)|[6-9]|\d\d)")

# Who asks nothing for what the list has no price of. The same models cost something elsewhere.
_GIVE_AWAY = frozenset({"gemini", "github-copilot", "google-genai", "google_genai"})

# Perplexity's fee for a request, or for what it read: it depends on how much that was, which
# Perplexity itself says with the whole cost.
_FEES = ("requests_kcount", "output_citation_mtok")

# Models of one's own on Bedrock are paid for by the hour, whatever they were made of.
_OWN_MODEL = re.compile(r"^arn:aws[^:]*:bedrock:.*:(custom|imported|provisioned)-model")

# Google's experimental models were free, or not for sale; the list takes their
# names for those of the models that they became.
_EXPERIMENTAL = re.compile(r"(^|/)gemini-.*-exp(-|$)")

# They search the web for every answer, and say nothing of it.
_ALWAYS_SEARCHES = re.compile(r"-search-(api|preview)\b")


@dataclass(frozen=True)
class Cost:
    """US dollars, exact, and where the figure is from."""

    amount: Decimal
    source: CostSource
    details: Mapping[str, Any] = field(default_factory=dict)
    """How it was computed: the price list's version, its model and unit prices as text."""


def cost_of(usage: Usage, *, provider: str | None, model: str | None, at: datetime) -> Cost | None:
    """The cost of a call made at `at`; None when nobody knows it.

    A provider that says what it charged is believed. A call that was billed in
    parts costs their sum, or nobody knows what.
    """
    if usage.cost is not None:
        return Cost(usage.cost, "provider")
    if model is None:
        return None
    prices = [_priced(part, provider, part.model or model, at) for part in usage.parts or (usage,)]
    known = [price for price in prices if price is not None]
    if len(known) < len(prices):
        return None
    details = {"price_list": f"genai-prices {genai_prices.__version__}"}
    explained = [_explained(price, usage.terms) for price in known]
    return Cost(
        sum((price.total_price for price in known), Decimal(0)),
        "computed",
        details | (explained[0] if len(explained) == 1 else {"parts": explained}),
    )


def _priced(
    usage: Usage, provider: str | None, model: str, at: datetime
) -> PriceCalculation | None:
    if not _is_counted(usage):
        return None
    if _EXPERIMENTAL.search(model.lower()) or _OWN_MODEL.search(model.lower()):
        return None
    model = model.removeprefix("models/")  # Google's resource name
    if provider is None and "/" in model:
        # LiteLLM's way to name a model: the provider's name before the first slash.
        provider, _, model = model.partition("/")
    known = PROVIDERS.get(provider.lower(), provider) if provider else None
    counts: dict[str, int | None] = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
        **usage.kinds,
    }
    if _ALWAYS_SEARCHES.search(model.lower()):
        counts.setdefault("web_searches", 1)
    try:
        price = genai_prices.calc_price(
            genai_prices.Usage(**_NONE | {name: count for name, count in counts.items() if count}),
            model,
            provider_id=known,
            genai_request_timestamp=at,
            price_context=dict(usage.terms),
        )
    except (LookupError, ValueError):
        # A model that the list doesn't know, or counts that can't be priced
        # (more tokens cached than sent): unknown, and counted as such.
        return None
    if _is_free(price.model_price):
        return price if model.endswith(":free") or provider in _GIVE_AWAY else None
    return price if _covers(price, counts, usage.terms, at) else None


def _is_counted(usage: Usage) -> bool:
    """Whether all that was billed is among the counts that a list can price."""
    counted = added(usage.prompt_tokens, usage.completion_tokens)
    if counted is None or _UNLISTED & usage.kinds.keys():
        return False
    # More in the total than in its parts: by OpenAI's protocol Gemini's thoughts are nowhere else.
    return usage.total_tokens is None or usage.total_tokens <= counted


def _covers(
    price: PriceCalculation,
    counts: Mapping[str, int | None],
    terms: Mapping[str, str],
    at: datetime,
) -> bool:
    """Whether the list has what this call was billed by, and not only something like it."""
    prices = price.model_price
    own = _OWN_PRICES + (_DEAR_AUDIO if price.provider.id in _SELL_OPENAI else ())
    if any(counts.get(name) and getattr(prices, of) is None for name, of in own):
        return False
    if any(getattr(prices, fee) is not None for fee in _FEES):
        return False
    return all(
        value in _USUAL
        or _has_variant(price.model, name, value, at)
        or (name == PLACE and not _DEARER_IN_PLACE.search(price.model.id))
        # Of some models sound costs what text does.
        or (name == SPEECH and not (prices.input_audio_mtok or prices.input_audio_hours))
        for name, value in terms.items()
    )


def _is_free(prices: ModelPrice) -> bool:
    return all(price is None for price in vars(prices).values())


def _has_variant(model: ModelInfo, name: str, value: str, at: datetime) -> bool:
    return any(
        variant.when.get(name) == value
        and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _explained(price: PriceCalculation, terms: Mapping[str, str]) -> dict[str, Any]:
    details: dict[str, Any] = {
        "provider": price.provider.id,
        "model": price.model.id,
        "unit_prices": _unit_prices(price.model_price),
    }
    return details | ({"terms": dict(terms)} if terms else {})


def _unit_prices(prices: ModelPrice) -> dict[str, Any]:
    """The list's own prices by their names, as text; of a tiered one each tier's."""
    return {
        name: {"0": str(price.base), **{str(tier.start): str(tier.price) for tier in price.tiers}}
        if isinstance(price, TieredPrices)
        else str(price)
        for name, price in vars(prices).items()
        if price is not None
    }
