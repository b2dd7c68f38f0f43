"""Settings, read from environment variables that begin with `CHATTER_`."""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chatter_db.errors import UsageError

Durability = Literal["database", "spool"]
Pooler = Literal["transaction", "session"]

log = logging.getLogger(__name__)

_PREFIX = "CHATTER_"

# The tests' own, and what Kubernetes sets for a service by the name of chatter:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_NOT_OURS = re.compile(
    r"CHATTER_(TEST_.*|RACES_EXAMPLES|CORPUS|(.+_)?(SERVICE_HOST|SERVICE_PORT.*|PORT(_\d+_.*)?))"
)

POOLED_POLL_SECONDS = 0.25
"""How often to look for events through a pooler by transaction, unless told otherwise."""


def default_data_dir() -> Path:
    """Where the embedded server keeps its data unless told otherwise.

    Postgres refuses to run as root, and the user it runs as instead can't
    enter root's home; so root's data lies under /var/lib.

    Raises UsageError for a user without a home.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/chatter-db")
    if base := os.environ.get("XDG_DATA_HOME"):
        return Path(base) / "chatter-db"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where this doesn't
    if not home.is_absolute() or home == Path("/"):
        raise UsageError(
            "This user has no home directory for the embedded server's data. "
            "Set CHATTER_DATA_DIR, or CHATTER_DATABASE_URL to use a Postgres of your own."
        )
    return home / ".local" / "share" / "chatter-db"


class Settings(BaseSettings):
    """One field per environment variable; the README lists them all."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True)

    database_url: str | None = Field(
        default=None,
        description="Postgres to use, as a URL; the embedded server when unset.",
    )
    require_database: bool = Field(
        default=True,
        description="Whether an app that records starts only where Postgres answers.",
    )
    data_dir: Path | None = Field(
        default=None,
        description="Directory of the embedded server's data; see default_data_dir when unset.",
    )
    postgres_bin: Path | None = Field(
        default=None,
        description="Directory with Postgres binaries (initdb, postgres) for the embedded server.",
    )
    spool_dir: Path | None = Field(
        default=None,
        description="Directory for records that wait for Postgres; the user's state directory.",
    )
    spool_limit_mb: int = Field(
        default=256,
        ge=1,
        description="How much may wait there, in MiB, before records are lost.",
    )
    durability: Durability = Field(
        default="database",
        description="What a recorded call waits for: the commit (database), or a file (spool).",
    )
    requests_per_minute: int = Field(
        default=600,
        ge=1,
        description="Requests that a user may make in a minute, per server process.",
    )
    max_body_kb: int = Field(
        default=1024,
        ge=1,
        description="Size of a request's body, in KiB, at most.",
    )
    events_poll_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Look for events so often instead of listening: for a pooler without LISTEN.",
    )
    pooler: Pooler | None = Field(
        default=None,
        description="How a pooler such as PgBouncer before Postgres pools; unset without one.",
    )
    keep_events_days: int = Field(
        default=30,
        ge=1,
        description="How long events are kept for those who were away, in days.",
    )
    keep_security_days: int = Field(
        default=365,
        ge=1,
        description="How long security events and alerts are kept, in days.",
    )
    max_streams: int = Field(
        default=5_000,
        ge=1,
        description="Event streams that a server process keeps open, at most.",
    )
    streams_per_user: int = Field(
        default=20,
        ge=1,
        description="Event streams that a user may have open, per server process.",
    )
    chats_per_user: int = Field(
        default=20,
        ge=1,
        description="Chats of a user that are answered at once, per server process.",
    )
    model: str = Field(
        default="offline",
        description="Chat model of the workflow, such as openai:gpt-4o-mini; offline needs no key.",
    )

    models: str = Field(
        default="offline",
        description="Models that users of the server may choose besides, separated by commas.",
    )

    @field_validator("data_dir", "postgres_bin", "spool_dir")
    @classmethod
    def _from_here(cls, path: Path | None) -> Path | None:
        """Absolute, for a process that changes its directory later.

        And with `~` as the home: no shell reads a unit file or a container's environment.
        """
        return path and Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - without a home

    @property
    def models_to_choose(self) -> list[str]:
        """What a user of the server may ask for: it is paid for with the server's keys."""
        names = [self.model, *(name.strip() for name in self.models.split(","))]
        return list(dict.fromkeys(filter(None, names)))

    @property
    def pools_transactions(self) -> bool:
        """Whether nothing of a session outlives a transaction: no statement, lock or LISTEN."""
        return self.pooler == "transaction"

    @property
    def poll_seconds(self) -> float | None:
        """How often to look for events; None to listen for them."""
        if self.events_poll_seconds is None and self.pools_transactions:
            return POOLED_POLL_SECONDS
        return self.events_poll_seconds


@lru_cache
def settings() -> Settings:
    """The process's settings, read once; variables that are none are warned of.

    Raises UsageError when a variable holds a value that can't be used.
    """
    for warning in unknown_variables(os.environ):
        log.warning("%s", warning)
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"CHATTER_{str(problem['loc'][0]).upper()}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise UsageError("Bad setting. " + "; ".join(lines)) from None


def unknown_variables(names: Iterable[str]) -> Iterator[str]:
    """A warning for each of `names` that begins like a setting and is none."""
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(names):
        written = name.upper()
        if not written.startswith(_PREFIX) or written in known or _NOT_OURS.fullmatch(written):
            continue
        near = difflib.get_close_matches(written, known, n=1)
        hint = f"; is {near[0]} meant?" if near else "."
        yield f"The variable {name} is no setting of chatter-db and is ignored{hint}"
