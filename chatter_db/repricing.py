"""Prices afterwards: fills costs that are missing, in a dated, audited, reversible way.

A price of one's own (chatter.prices) at the time of the call comes first, then the price list
that comes with the code. Totals, rollups and events follow by the triggers of the messages.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Text, cast, func, insert, select, update

from chatter_db.errors import UsageError
from chatter_db.models import Price, Repricing
from chatter_db.queries import query
from chatter_db.recorder.pricing import cost_of
from chatter_db.recorder.usage import Usage, from_wire
from chatter_db.recorder.usage.counts import as_count

BATCH = 1_000
"""Messages in one transaction."""


@dataclass(frozen=True)
class Selection:
    """Which calls to price; without `computed` only those that have no cost."""

    provider: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    computed: bool = False

    def __post_init__(self) -> None:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise UsageError(f"since ({self.since}) must be before until ({self.until}).")

    def as_json(self) -> dict[str, Any]:
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in vars(self).items()
            if value
        }


@dataclass
class OfModel:
    """What a repricing found of one model: calls, and US dollars before and after."""

    looked_at: int = 0
    priced: int = 0
    unknown: int = 0
    """Calls whose price nobody knows still."""
    before: Decimal | None = None
    """Of the priced calls; None where none had a cost."""
    after: Decimal | None = None


@dataclass
class Repriced:
    """The outcome by (provider, model); `id` is None for a trial."""

    id: UUID | None
    models: dict[tuple[str, str], OfModel] = field(default_factory=dict)
    changed_meanwhile: int = 0
    """Calls that others changed after they were read: they are left alone."""

    @property
    def priced(self) -> int:
        return sum(model.priced for model in self.models.values()) - self.changed_meanwhile


def prices(connection: Connection) -> list[dict[str, Any]]:
    """Prices of one's own, in US dollars per million tokens."""
    return [dict(row) for row in connection.execute(query("prices")).mappings()]


def missing(connection: Connection) -> list[dict[str, Any]]:
    """Models with calls of known usage and unknown cost: how many, tokens, first and last.

    `known` are those whose last call has a price by now, one's own or the list's: they only need
    to be priced.
    """
    rows = [dict(row) for row in connection.execute(query("prices_missing")).mappings()]
    return [row | {"known": row["known"] or _listed(row)} for row in rows]


def repricings(connection: Connection) -> list[dict[str, Any]]:
    """Pricings afterwards, the newest first, with the calls and US dollars they changed."""
    return [dict(row) for row in connection.execute(query("repricings")).mappings()]


def set_price(
    connection: Connection,
    provider: str,
    model: str,
    *,
    valid_from: datetime,
    prompt: Decimal | None,
    completion: Decimal | None,
    cache_read: Decimal | None = None,
    cache_write: Decimal | None = None,
    note: str | None = None,
) -> None:
    """Writes a price in US dollars per million tokens; without prompt and completion it ends one.

    Raises UsageError for a price that can't be.
    """
    if (prompt is None) != (completion is None):
        raise UsageError("A price needs both: of prompt tokens and of completion tokens.")
    if prompt is None and (cache_read is not None or cache_write is not None):
        raise UsageError(
            "Cached tokens are part of a prompt: a price of theirs needs the prompt's."
        )
    given = {
        "prompt_price": prompt,
        "completion_price": completion,
        "cache_read_price": cache_read,
        "cache_write_price": cache_write,
    }
    for name, price in given.items():
        if price is not None and not (price.is_finite() and 0 <= price < 1_000_000):
            raise UsageError(
                f"{name.replace('_', ' ')}: US dollars per million tokens, from 0 to 999,999; "
                f"not {price}."
            )
    connection.execute(
        insert(Price).values(
            provider=provider, model=model, valid_from=valid_from, note=note, **given
        )
    )
    connection.commit()


def reprice(
    connection: Connection,
    selection: Selection,
    *,
    reason: str,
    trial: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Repriced:
    """Prices what `selection` finds, a batch to a transaction; with `trial` it only tells.

    `progress` gets the number of calls looked at so far. What broke off half way stays priced,
    with its audit, and another one does the rest.
    """
    outcome = Repriced(None if trial else _begin(connection, selection, reason))
    looked_at = 0
    for page in _pages(connection, selection):
        costs = _changes(page, outcome)
        if costs and outcome.id is not None:
            changed = connection.scalar(
                query("reprice_apply"), {"repricing": outcome.id, "costs": json.dumps(costs)}
            )
            outcome.changed_meanwhile += len(costs) - changed
        connection.commit()
        looked_at += len(page)
        progress(looked_at)
    if outcome.id is not None:
        connection.execute(
            update(Repricing)
            .where(Repricing.id == outcome.id)
            .values(finished_at=func.chatter.clock())
        )
        connection.commit()
    return outcome


def _changes(page: list[Row[Any]], outcome: Repriced) -> list[dict[str, Any]]:
    """The costs that this page's calls should have and don't; counted in `outcome`."""
    costs = []
    for row in page:
        model = outcome.models.setdefault(
            (row.provider_used or "", row.model_used or ""), OfModel()
        )
        model.looked_at += 1
        found = _price(row)
        if found is None:
            model.unknown += 1
        elif found[0] != row.cost:
            cost, details = found
            model.priced += 1
            if row.cost is not None:
                model.before = (model.before or 0) + row.cost
            model.after = (model.after or 0) + cost
            costs.append(
                {
                    "id": str(row.id),
                    "old_cost": None if row.cost is None else str(row.cost),
                    "cost": str(cost),
                    "price": details,
                }
            )
    return costs


def find(connection: Connection, prefix: str) -> UUID:
    """The repricing whose id begins with `prefix`.

    Raises UsageError unless there is one, and one only.
    """
    begins = cast(Repricing.id, Text).startswith(prefix.lower(), autoescape=True)
    found = connection.scalars(select(Repricing.id).where(begins).order_by(Repricing.id)).all()
    # A shell's variable that is empty means no repricing, even if there is only one.
    if not prefix or not found:
        raise UsageError(f"There is no repricing {prefix}; chatter reprice --list shows all.")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} repricings begin with {prefix!r}, such as {found[-2]} and {found[-1]}; "
            "give more of the id."
        )
    return found[0]


def undo(
    connection: Connection, repricing: UUID, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Puts back what a repricing changed; the number of calls. Safe to repeat.

    What was changed again since then stays as it is.

    Raises UsageError if there is no such repricing.
    """
    if connection.scalar(select(Repricing.id).where(Repricing.id == repricing)) is None:
        raise UsageError(f"There is no repricing {repricing}; chatter reprice --list shows all.")
    undone = 0
    while True:
        batch = connection.scalar(query("reprice_undo"), {"repricing": repricing})
        connection.commit()
        if not batch:
            return undone
        undone += batch
        progress(undone)


def _begin(connection: Connection, selection: Selection, reason: str) -> UUID:
    repricing = connection.execute(
        insert(Repricing)
        .values(reason=reason, selection=selection.as_json())
        .returning(Repricing.id)
    ).scalar_one()
    connection.commit()
    return repricing


def _pages(connection: Connection, selection: Selection) -> Iterator[list[Row[Any]]]:
    after = UUID(int=0)
    while True:
        page = list(
            connection.execute(
                query("reprice_candidates"), {**vars(selection), "after": after, "limit": BATCH}
            )
        )
        if not page:
            return
        after = page[-1].id
        yield page


def _price(row: Row[Any]) -> tuple[Decimal, Mapping[str, Any]] | None:
    if row.own_cost is not None:
        return row.own_cost, row.own_details
    usage = _usage(row)
    cost = usage and cost_of(
        usage, provider=row.provider_used, model=row.model_used, at=row.created_at
    )
    return (cost.amount, cost.details) if cost else None


def _listed(row: Mapping[str, Any]) -> bool:
    """Whether the price list has the last call of a model."""
    provider, model = row["provider"] or None, row["model"] or None
    anything = Usage(prompt_tokens=1, completion_tokens=1)
    return cost_of(anything, provider=provider, model=model, at=row["last_call"]) is not None


def _usage(row: Row[Any]) -> Usage | None:
    """What the call used, read from its block once more, and what stood beside the block.

    None where the block tells other counts than the row: then nobody knows which to price.
    """
    counts = (row.prompt_tokens, row.completion_tokens)
    if row.usage is None:
        return Usage(
            *counts,
            cache_read_tokens=row.cache_read_tokens,
            cache_write_tokens=row.cache_write_tokens,
            reasoning_tokens=row.reasoning_tokens,
        )
    read = from_wire(row.provider_used, {"usage": row.usage})
    if (read.prompt_tokens, read.completion_tokens) != counts:
        return None
    # Anybody may have written into a row's metadata.
    kept = {name: as_count(count) for name, count in _object(row.usage_kinds).items()}
    kinds = {name: count for name, count in kept.items() if count} | dict(read.kinds)
    terms = {name: term for name, term in _object(row.usage_terms).items() if type(term) is str}
    # Where the block is LangChain's, its details have names that no provider's have.
    details = {
        name: getattr(row, name)
        for name in ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
        if getattr(read, name) is None
    }
    return replace(read, kinds=kinds, terms=terms | dict(read.terms), **details)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
