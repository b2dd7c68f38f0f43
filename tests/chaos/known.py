"""What those who use the books know of them, whatever the books say."""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.providers.openai import Reply

MODEL = "gpt-4o-mini"
PROMPT_PRICE = Decimal("0.00000015")
COMPLETION_PRICE = Decimal("0.0000006")
FIRST_CALL = 1_000


def cost(prompt_tokens: int, completion_tokens: int) -> Decimal:
    """What the model charges, in US dollars."""
    return prompt_tokens * PROMPT_PRICE + completion_tokens * COMPLETION_PRICE


class Answers:
    """The provider's answers: no two calls have the same prompt tokens, which name the call."""

    def __init__(self) -> None:
        self._numbers = itertools.count(FIRST_CALL)
        self.completion_tokens: dict[int, int] = {}

    def __call__(self, request: dict[str, Any]) -> Reply:
        number = next(self._numbers)
        self.completion_tokens[number] = completion = 10 + number % 7
        names = [tool["function"]["name"] for tool in request.get("tools", [])]
        last = request["messages"][-1]["role"]
        if last != "tool" and "weather" in names:
            tools = (("weather", {"city": "Rome"}),)
        elif last != "tool" and number % 3 == 0:
            tools = (("calculate", {"expression": "6 * 7"}),)
        else:
            return Reply(f"Answer {number}.", prompt_tokens=number, completion_tokens=completion)
        return Reply(tools=tools, prompt_tokens=number, completion_tokens=completion)


@dataclass(frozen=True)
class Answered:
    """An answer that somebody was given as recorded."""

    execution: UUID
    question: str
    answer: str
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal
    calls: tuple[int, ...] | None
    """The calls of the run, by their prompt tokens; None where the caller isn't told."""


@dataclass(frozen=True)
class Row:
    """A message that a writer of SQL wrote."""

    id: UUID
    conversation: UUID
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal


@dataclass
class Known:
    """The ledger of a campaign."""

    answered: list[Answered] = field(default_factory=list)
    committed: dict[UUID, Row] = field(default_factory=dict)
    rolled_back: set[UUID] = field(default_factory=set)
    unknown: list[list[Row]] = field(default_factory=list)
    """Transactions whose commit was sent and not answered: all of one is there, or nothing."""
    given_up: Counter[str] = field(default_factory=Counter)
    """Questions by HTTP that got no answer, by the last reason."""
    transactions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Errors that writers of SQL had, by SQLSTATE."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Of the answers by HTTP."""
    clock: timedelta | None = None
    """How far the clock of the writers of SQL is off."""
    heard: dict[str, float] = field(default_factory=dict)
    """When each of those who use the books was last acknowledged something."""
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def acknowledged(self) -> int:
        return len(self.answered) + self.transactions

    def answer(self, who: str, answered: Answered) -> None:
        self.answered.append(answered)
        self._progress(who)

    def commit(self, who: str, rows: list[Row]) -> None:
        self.transactions += 1
        self.committed.update((row.id, row) for row in rows)
        self._progress(who)

    def roll_back(self, rows: list[Row]) -> None:
        self.rolled_back.update(row.id for row in rows)

    def _progress(self, who: str) -> None:
        self.heard[who] = time.monotonic()
        self._more.set()

    async def until_acknowledged(self, everyone: set[str], seconds: float, after: str) -> None:
        """Waits until everyone named, or with none named anybody, was acknowledged something."""
        begin = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._more.clear()
                    served = {who for who, at in self.heard.items() if at > begin}
                    if served and everyone <= served:
                        return
                    await self._more.wait()
        except TimeoutError:
            served = {who for who, at in self.heard.items() if at > begin}
            missing = ", ".join(sorted(everyone - served)) or "anybody"
            raise AssertionError(
                f"within {seconds:g} s after {after} nothing was acknowledged to {missing}"
            ) from None
