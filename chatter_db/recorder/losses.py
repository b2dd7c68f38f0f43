"""What can't be booked as it is: how much of it is booked all the same, and what is lost."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias
from uuid import UUID

import psycopg

from chatter_db.errors import RecordingFailed
from chatter_db.recorder.booking import Booking, execution_ids, lacks_parent, passes, reason
from chatter_db.recorder.records import MessageRow, Record
from chatter_db.recorder.reduced import reduced
from chatter_db.recorder.spool import Spool

log = logging.getLogger(__name__)

Book: TypeAlias = Callable[[Sequence[Record]], dict[UUID, UUID]]
"""Books records in one transaction."""


class Losses:
    """Those of a writer."""

    def __init__(self, booking: Booking, spool: Spool) -> None:
        self._booking = booking
        self._spool = spool
        self.lost = 0
        self.reduced = 0

    def mend(self, records: Sequence[Record], refusal: Exception, book: Book) -> dict[UUID, UUID]:
        """Books what Postgres refuses as it is: with a run that is gone, or in reduced form."""
        starts = self._booking.starts_of(records) if lacks_parent(refusal) else []
        if starts:
            try:
                booked = book([*starts, *records])
            except psycopg.Error as error:
                if passes(error):
                    raise
            else:
                log.warning(
                    "The run %s was not in the books; it is now, with what it brings.",
                    starts[0].execution_id,
                )
                return booked
        return self._reduce(records, refusal, book)

    def _reduce(
        self, records: Sequence[Record], refusal: Exception, book: Book
    ) -> dict[UUID, UUID]:
        """Books the figures without the texts, and puts the whole aside."""
        booked = book([reduced(record, reason(refusal)) for record in records])
        self.reduced += len(records)
        log.error(
            "Postgres refused %d record(s) of execution %s: %s. They are booked in reduced form; "
            "as they were, they are %s",
            len(records),
            execution_ids(records)[0],
            reason(refusal),
            self._put_aside(records),
        )
        return booked

    def refuse(self, records: Sequence[Record], error: Exception) -> RecordingFailed:
        """Puts records aside that Postgres will never take."""
        log.error("Records that Postgres refused are %s", self._put_aside(records))
        return self.lose(records, error)

    def _put_aside(self, records: Sequence[Record]) -> str:
        """Where they are then. That a disk takes no more must not cost others their booking."""
        try:
            return f"in {self._spool.refuse(records)}"
        except OSError as error:
            return f"nowhere: {error}"

    def lose(self, records: Sequence[Record], error: Exception) -> RecordingFailed:
        """Counts records as lost, and returns what their caller is to hear."""
        self.lost += len(records)
        self._booking.note(records)
        failure = RecordingFailed(
            f"{len(records)} record(s) of execution "
            f"{', '.join(map(str, execution_ids(records)))} could not be booked: "
            f"{reason(error)}"
        )
        # Loud, because LangChain only warns of a handler that raises. Figures are
        # what would be lost; texts stay out of logs.
        log.error("%s; lost: %s", failure, "; ".join(_figures(records)))
        return failure


def _figures(records: Iterable[Record]) -> Iterable[str]:
    for record in records:
        if isinstance(record, MessageRow):
            yield (
                f"message {record.id} {record.role} {record.model_used} "
                f"prompt_tokens={record.prompt_tokens} "
                f"completion_tokens={record.completion_tokens} cost={record.cost}"
            )
        else:
            yield type(record).__name__
