"""Every error a user of chatter-db can meet.

Each message says what is wrong, where, and what to do about it. The command
line prints the message alone and exits with `exit_code`; a traceback means a
bug of ours.
"""

from datetime import datetime
from typing import ClassVar


class ChatterError(Exception):
    """Base of all errors raised on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(ChatterError):
    """The caller asked for something that can't be: a bad argument, option or setting."""

    exit_code: ClassVar[int] = 2


class DatabaseUnavailable(ChatterError):
    """No connection to Postgres: not running, unreachable, sign-in refused, or lost."""


class EmbeddedServerError(ChatterError):
    """The embedded Postgres can't be found, started or used."""


class SchemaError(ChatterError):
    """The schema `chatter` is missing, older or newer than this version of the code."""


class ImportRejected(ChatterError):
    """A file to import has lines that can't be booked; nothing of it was booked."""


class RecordingFailed(ChatterError):
    """Postgres refused, or did not answer, a record of the recorder."""


class EventsPruned(ChatterError):
    """Retention has removed events after a position; `oldest` is where the stream begins now."""

    def __init__(self, oldest: str) -> None:
        super().__init__(
            "Events after this position were removed by retention; "
            f"begin anew at {oldest} and read what you show from the database."
        )
        self.oldest = oldest


class SignInRefused(ChatterError):
    """User or password is wrong; the message doesn't say which."""


class SignInBlocked(ChatterError):
    """Too many failed sign-ins: the address or the user is kept out until `until`."""

    def __init__(self, until: datetime) -> None:
        super().__init__(
            f"Too many failed sign-ins. Try again after {until:%Y-%m-%d %H:%M:%S} UTC."
        )
        self.until = until
