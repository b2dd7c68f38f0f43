"""The story of one request: everything in the books that bears its correlation id."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from chatter_db.ledger import Chatter
from chatter_db.queries import query


@dataclass(frozen=True)
class Step:
    """One thing that happened, placed where it began."""

    began_at: datetime
    step: str
    """workflow, model call, tool call, user message, security event, ..."""
    name: str | None
    """The workflow, model, tool or kind of security event."""
    status: str
    duration_ms: float | None
    """Milliseconds; None while it runs, and for what takes no time."""
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: Decimal | None
    """US dollars; None where there is none or it is not known."""
    error_type: str | None
    id: UUID
    execution_id: UUID | None
    conversation_id: UUID | None
    user_id: UUID | None
    """Whose step: the run's user, else the conversation's."""


@dataclass(frozen=True)
class Trace:
    """The steps of one correlation id, in order."""

    correlation_id: str
    steps: Sequence[Step]

    @property
    def cost(self) -> Decimal | None:
        """The known costs of all steps, in US dollars; None if no model call's is known."""
        # A run's own cost is the sum of theirs.
        known = [s.cost for s in self.steps if s.cost is not None and s.step != "workflow"]
        spent = sum(known, Decimal(0))
        unknown = self._calls and self.unpriced_calls == len(self._calls)
        return None if unknown and not spent else spent

    @property
    def unpriced_calls(self) -> int:
        """Model calls whose cost is not known and so not in `cost`."""
        return sum(s.cost is None for s in self._calls)

    @property
    def lasted(self) -> timedelta:
        """From the first step's start to the last one's end, as far as they have ended."""
        ends = [s.began_at + timedelta(milliseconds=s.duration_ms or 0) for s in self.steps]
        return max(ends) - self.steps[0].began_at if ends else timedelta()

    def of_user(self, user_id: UUID) -> "Trace":
        """The steps that are this user's."""
        return Trace(self.correlation_id, [s for s in self.steps if s.user_id == user_id])

    @property
    def _calls(self) -> list[Step]:
        return [s for s in self.steps if s.step == "model call"]


async def trace(chatter: Chatter, correlation_id: str, *, acting_for: UUID | None = None) -> Trace:
    """What the books know of `correlation_id`, to a user if told whom; without steps if nothing."""
    async with chatter.session(acting_for=acting_for) as session:
        rows = await session.execute(query("trace"), {"correlation_id": correlation_id})
        return Trace(correlation_id, [Step(**row) for row in rows.mappings()])
