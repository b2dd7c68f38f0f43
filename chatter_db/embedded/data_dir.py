"""The embedded server's data directory: what lies where, and what its files say."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chatter_db.errors import EmbeddedServerError

# What an otherwise empty directory may hold: the root of a mounted disk, a folder seen by Finder.
HARMLESS = {"lost+found", ".DS_Store"}
LOG_LIMIT_BYTES = 10_000_000
LOG_TAIL_LINES = 15
SCARCE_BYTES = 64_000_000


@dataclass(frozen=True)
class Postmaster:
    """The content of postmaster.pid: true while the server runs, else a leftover."""

    pid: int
    port: int
    ready: bool


@dataclass(frozen=True)
class DataDir:
    """Paths below a data directory, with the files that Postgres leaves there."""

    path: Path

    @property
    def start_lock(self) -> Path:
        """Held by who starts or stops the server; also the mark that the directory is ours."""
        return self.path / "chatter-db.lock"

    @property
    def leases(self) -> Path:
        """Held, shared, by every process that uses the server."""
        return self.path / "leases.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.path / "supervisor.lock"

    @property
    def server_lock(self) -> Path:
        """Held by all processes of Postgres as long as they live."""
        return self.path / "server.lock"

    @property
    def password_file(self) -> Path:
        """The database user's password, readable by the owner of the cluster only."""
        return self.path / "password"

    @property
    def log_file(self) -> Path:
        """What Postgres and the supervisor say."""
        return self.path / "server.log"

    @property
    def cluster(self) -> Path:
        """Postgres's own data directory."""
        return self.path / "cluster"

    def claim(self) -> None:
        """Make the directory ours; needs no lock.

        Raises EmbeddedServerError if it holds something else, OSError if it can't be made.
        """
        # Another process may make it at the same moment.
        with suppress(FileExistsError):
            self.path.mkdir(parents=True)
            # Root's server runs as another user, who has to get through.
            self.path.chmod(0o755 if os.geteuid() == 0 else 0o700)
        content = {entry.name for entry in self.path.iterdir()} - HARMLESS
        if content and self.start_lock.name not in content:
            what = "a Postgres cluster" if "PG_VERSION" in content else "other files"
            raise EmbeddedServerError(
                f"{self.path} holds {what} not made by chatter's embedded server, which leaves"
                " them alone. Choose an empty or new directory with CHATTER_DATA_DIR; to use a"
                " server of your own set CHATTER_DATABASE_URL."
            )

    def postmaster(self) -> Postmaster | None:
        """What postmaster.pid says, or None if it is missing or not yet complete."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            pid, port = int(lines[0]), int(lines[3])
        except (FileNotFoundError, IndexError, ValueError):
            return None
        return Postmaster(pid, port, ready=len(lines) > 7 and lines[7].strip() == "ready")

    def bin_dir_in_use(self) -> Path:
        """The directory of the binaries that the server was last started with."""
        line = (self.cluster / "postmaster.opts").read_text(encoding="utf-8")
        return Path(line.partition(' "')[0]).parent

    def open_log(self) -> IO[bytes]:
        """Open the log to append to it."""
        descriptor = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def rotate_log(self) -> None:
        """Begin a new log if it has grown long; the one before is kept."""
        if self.log_size() > LOG_LIMIT_BYTES:
            self.log_file.rename(self.log_file.with_suffix(".log.old"))

    def log_size(self) -> int:
        """Size of the log in bytes; 0 if there is none."""
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def failure(self, what: str, output: str) -> EmbeddedServerError:
        """An error with what failed, the last lines of output, and whether the disk is full."""
        free = shutil.disk_usage(self.path).free
        parts = [f"{what} in {self.path}."]
        if free < SCARCE_BYTES:
            parts.append(
                f"The disk is full or nearly so ({free // 1_000_000} MB are free): make room, or"
                " choose another disk with CHATTER_DATA_DIR."
            )
        tail = output.strip().splitlines()[-LOG_TAIL_LINES:]
        parts.append(f"The log is {self.log_file}." if not tail else "It said:")
        return EmbeddedServerError("\n".join([" ".join(parts), *tail]))

    def log_since(self, offset: int) -> str:
        """What was logged after the first `offset` bytes."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as log:
            log.seek(offset)
            return log.read().decode("utf-8", errors="replace")
