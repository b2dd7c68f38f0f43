"""The starts of runs that have not ended yet, to be booked again where the books don't have them.

A database that was restored to an earlier state has none of them, and one that refused a start
or could not be reached never got it. What comes of these runs afterwards was paid for, and would
have no execution to be booked under.
"""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from chatter_db.recorder.records import Record, RunEnded, RunStarted

MAX_RUNS = 10_000
"""How many are kept, the newest: some programs leave runs that never end."""


class Begun:
    """The starts that were booked, or lost, and not ended yet; for one thread."""

    def __init__(self) -> None:
        self._starts: dict[UUID, RunStarted] = {}

    def note(self, booked: Iterable[Record]) -> None:
        """Looks through what was just booked, or lost."""
        for record in booked:
            if isinstance(record, RunStarted):
                self._starts[record.execution_id] = record
            elif isinstance(record, RunEnded):
                self._starts.pop(record.execution_id, None)
        while len(self._starts) > MAX_RUNS:
            del self._starts[next(iter(self._starts))]

    def starts_of(self, records: Iterable[Record]) -> list[RunStarted]:
        """The starts of `records` that are not among them, to be booked once more."""
        own = {r.execution_id for r in records if isinstance(r, RunStarted)}
        ids = {record.execution_id: None for record in records if record.execution_id not in own}
        return [_again(self._starts[each]) for each in ids if each in self._starts]


def _again(start: RunStarted) -> RunStarted:
    """`start` for books that may have lost its conversation too."""
    return msgspec.structs.replace(start, new_conversation=start.conversation_id is not None)
