"""Money in answers: decimal text, as Postgres and the events write it."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import PlainSerializer


def plain(value: Any) -> Any:
    """A Decimal without an exponent: pydantic would write 0.0000001 as 1E-7."""
    return f"{value:f}" if isinstance(value, Decimal) else value


Money = Annotated[Decimal, PlainSerializer(plain, return_type=str)]

Row = dict[str, Annotated[Any, PlainSerializer(plain)]]
"""A row of a report."""
