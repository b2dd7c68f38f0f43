"""How many inputs a campaign has tried, what became of them, and how to try so many."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

Input = TypeVar("Input")
Outcome: TypeAlias = Literal["accepted", "refused"]
Tell: TypeAlias = Callable[[int], None]

ROUND = 500
"""Inputs drawn from one seed: hypothesis remembers all of a run, and slows down by it."""

SHOWN = 600


@dataclass
class Failure:
    """A way to fail: how often, and the shortest input that does it."""

    count: int
    example: str


@dataclass
class Tally:
    """What a campaign tried and found."""

    campaign: str
    tried: int = 0
    accepted: int = 0
    refused: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What could not be had here."""
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        return sum(failure.count for failure in self.failures.values())

    def note_failure(self, error: Exception, tried: object) -> None:
        example = repr(tried)
        known = self.failures.setdefault(_kind(error), Failure(0, example))
        known.count += 1
        known.example = min(known.example, example, key=len)

    def figures(self) -> dict[str, Any]:
        """Everything that was counted."""
        return {
            "campaign": self.campaign,
            "inputs": self.tried,
            "accepted": self.accepted,
            "refused": self.refused,
            "failures": self.failed,
            "seconds": round(self.seconds, 1),
            "notes": self.notes,
            "found": {
                kind: (failure.count, failure.example[:SHOWN])
                for kind, failure in self.failures.items()
            },
        }


def drive(
    tally: Tally,
    inputs: SearchStrategy[Input],
    count: int,
    number: int,
    attempt: Callable[[Input], Outcome],
    tell: Tell = lambda _: None,
) -> None:
    """Tries `count` inputs, drawn from the seed `number`, and goes on after those that fail.

    `attempt` says what became of an input, and raises where that must not be.
    """
    first = tally.tried
    while (left := count - (tally.tried - first)) > 0:
        before = tally.tried

        @seed(number * 1_000_003 + before)
        @settings(
            max_examples=min(ROUND, left),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def one_round(one: Input) -> None:
            tally.tried += 1
            try:
                outcome = attempt(one)
            # Whatever it is, the next input is tried all the same.
            except Exception as error:  # noqa: BLE001
                tally.note_failure(error, one)
                return
            if outcome == "accepted":
                tally.accepted += 1
            else:
                tally.refused += 1

        one_round()
        tell(tally.tried)
        assert tally.tried > before, "no more inputs to draw"


def _kind(error: Exception) -> str:
    """What was violated, or which error came from where: the same for all that fail alike."""
    if isinstance(error, AssertionError):
        return str(error).splitlines()[0] if str(error) else "an assertion"
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.line}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "chatter_db" in frame.filename
    ]
    return " <- ".join([f"{type(error).__name__}: {str(error)[:200]}", *frames[:-3:-1]])
