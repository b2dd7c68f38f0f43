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
from chatter_db.recorder.usage import Usage
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

# What the list would leave out where it has no price for it; other kinds cost as tokens do.
_OWN_PRICES = (
    ("cache_write_1h_tokens", "cache_write_1h_mtok"),
    ("storage_searches", "storage_searches_kcount"),
    ("web_searches", "web_searches_kcount"),
)

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
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    if _EXPERIMENTAL.search(model.lower()) or usage.kinds.get(IMAGES):
        return None
    model = model.removeprefix("models/")  # Google's resource name
    if provider is None and "/" in model:
        # LiteLLM's way to name a model: the provider's name before the first slash.
        provider, _, model = model.partition("/")
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
            genai_prices.Usage(**{name: count for name, count in counts.items() if count}),
            model,
            provider_id=PROVIDERS.get(provider.lower(), provider) if provider else None,
            genai_request_timestamp=at,
            price_context=dict(usage.terms),
        )
    except (LookupError, ValueError):
        # A model that the list doesn't know, or counts that can't be priced
        # (more tokens cached than sent): unknown, and counted as such.
        return None
    return price if _covers(price, counts, usage.terms, at) else None


def _covers(
    price: PriceCalculation,
    counts: Mapping[str, int | None],
    terms: Mapping[str, str],
    at: datetime,
) -> bool:
    """Whether the list has what this call was billed by, and not only something like it."""
    if any(counts.get(name) and getattr(price.model_price, of) is None for name, of in _OWN_PRICES):
        return False
    return all(
        value in _USUAL or _has_variant(price.model, name, value, at)
        for name, value in terms.items()
    )


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
