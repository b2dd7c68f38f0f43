"""The calls that all contenders get: generated, the same ones every time.

Nothing but the standard library: the writers of other interpreters read them with this too.
"""

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from uuid import UUID

CALLS_OF_A_CONVERSATION = 10
USERS = 20

# US dollars a token, prompt and completion, as every price list of the contenders has them.
PRICES = {
    "gpt-4o": ("openai", Decimal("0.0000025"), Decimal("0.00001")),
    "gpt-4o-mini": ("openai", Decimal("0.00000015"), Decimal("0.0000006")),
    "gpt-4.1": ("openai", Decimal("0.000002"), Decimal("0.000008")),
    "gpt-4.1-mini": ("openai", Decimal("0.0000004"), Decimal("0.0000016")),
    "claude-sonnet-4-5": ("anthropic", Decimal("0.000003"), Decimal("0.000015")),
    "claude-haiku-4-5": ("anthropic", Decimal("0.000001"), Decimal("0.000005")),
}

ANSWER = "Your parcel left the warehouse this morning and should be with you by Thursday. "


@dataclass(frozen=True)
class Call:
    """A model call, with its exact cost in US dollars as decimal text."""

    id: str
    conversation: str
    user: str
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cost: str
    answer: str

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Sums:
    """How many calls there are, their tokens and their cost."""

    calls: int
    tokens: int
    cost: Decimal


def generate(number: int, label: str) -> list[Call]:
    """So many calls of conversations named `label-...`; neighbours are of different ones."""
    dice = random.Random(f"{label} {number}")
    conversations = max(1, number // CALLS_OF_A_CONVERSATION)
    made = []
    for place in range(number):
        conversation = place % conversations
        model = dice.choice(list(PRICES))
        provider, prompt_price, completion_price = PRICES[model]
        prompt = min(60_000, 1 + int(dice.lognormvariate(7, 1)))
        completion = min(4_000, 1 + int(dice.lognormvariate(5, 0.8)))
        made.append(
            Call(
                id=str(UUID(int=dice.getrandbits(128), version=4)),
                conversation=f"{label}-{conversation}",
                user=f"user-{conversation % USERS}",
                provider=provider,
                model=model,
                prompt_tokens=prompt,
                completion_tokens=completion,
                cost=str(prompt * prompt_price + completion * completion_price),
                answer=ANSWER * dice.randint(1, 4),
            )
        )
    return made


def recount(calls: Iterable[Call]) -> Sums:
    """What the books must say of these calls, in exact arithmetic."""
    each = list(calls)
    return Sums(
        calls=len(each),
        tokens=sum(call.total_tokens for call in each),
        cost=sum((Decimal(call.cost) for call in each), Decimal(0)),
    )


def agent_over(children: list[Call], call_id: str) -> Call:
    """The span of an agent, which states the usage of its children once more."""
    return replace(
        children[0],
        id=call_id,
        prompt_tokens=sum(child.prompt_tokens for child in children),
        completion_tokens=sum(child.completion_tokens for child in children),
        cost=str(sum((Decimal(child.cost) for child in children), Decimal(0))),
    )


def write_calls(path: Path, calls: Iterable[Call]) -> None:
    path.write_text("".join(json.dumps(asdict(call)) + "\n" for call in calls))


def read_calls(path: Path) -> Iterator[Call]:
    with path.open() as lines:
        for line in lines:
            yield Call(**json.loads(line))
