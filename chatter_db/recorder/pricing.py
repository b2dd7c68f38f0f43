"""What a model call cost: as the provider stated it, else by the price list of its day."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import genai_prices

from chatter_db.models import CostSource
from chatter_db.recorder.usage import Usage

# genai-prices names providers by their own names, LangChain by its packages'.
PROVIDERS = {
    "azure_openai": "azure",
    "azure_ai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "amazon_bedrock": "aws",
    "anthropic_bedrock": "aws",
    "google_genai": "google",
    "google_vertexai": "google",
    "google-genai": "google",
    "mistralai": "mistral",
    "xai": "x-ai",
}


@dataclass(frozen=True)
class Cost:
    """US dollars, exact, and where the figure is from."""

    amount: Decimal
    source: CostSource


def cost_of(usage: Usage, *, provider: str | None, model: str | None, at: datetime) -> Cost | None:
    """The cost of a call made at `at`; None when nobody knows it."""
    stated = _stated(usage.raw)
    if stated is not None:
        return Cost(stated, "provider")
    if model is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    try:
        price = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                cache_write_tokens=usage.cache_write_tokens,
            ),
            model,
            provider_id=PROVIDERS.get(provider, provider) if provider else None,
            genai_request_timestamp=at,
        )
    except (LookupError, ValueError):
        # A model that the list doesn't know, or counts that can't be priced
        # (more tokens cached than sent): unknown, and counted as such.
        return None
    return Cost(price.total_price, "computed")


def _stated(block: Mapping[str, Any] | None) -> Decimal | None:
    """`cost` of the usage block (OpenRouter and others), in US dollars."""
    value = block.get("cost") if block else None
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        # The text of a float is what the provider sent, to the digit.
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount < 1_000_000 else None
