"""The OS user that runs Postgres, which refuses to run as root."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chatter_db.errors import EmbeddedServerError

if sys.platform != "win32":
    import pwd

# Postgres gets no other variable: the rest may hold keys, and PG* would change its behaviour.
PASSED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True)
class Account:
    """An OS user to run programs as; `uid` is None when that is the current one."""

    name: str
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def for_cluster(cls, cluster: Path) -> "Account":
        """Who runs the server of this cluster, which need not exist yet.

        As root: the owner of the cluster, of a new one `postgres`, else `nobody`.
        Raises EmbeddedServerError if root finds no such user.
        """
        if os.geteuid() != 0:
            return cls(name=f"uid {os.geteuid()}")
        if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
            return cls(name=f"uid {owner.st_uid}", uid=owner.st_uid, gid=owner.st_gid)
        for name in ("postgres", "nobody"):
            try:
                user = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name=name, uid=user.pw_uid, gid=user.pw_gid)
        raise EmbeddedServerError(
            "Postgres refuses to run as root, and there is neither a user postgres nor nobody"
            " to run it as. Run chatter as a plain user, or set CHATTER_DATABASE_URL."
        )

    def run(self, *argv: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program to its end; `stdout` has all its output. Raises OSError if it can't run."""
        return subprocess.run(
            argv,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env=_environment(),
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )

    def spawn(
        self, argv: Sequence[str | Path], log: IO[bytes], inherit: int
    ) -> subprocess.Popen[bytes]:
        """Start a program in its own session, with its output in `log` and one open file more."""
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            pass_fds=[inherit],
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )

    def own(self, path: Path) -> None:
        """Make this user the owner of a file or directory."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def check_can_enter(self, directory: Path) -> None:
        """Raise EmbeddedServerError, naming the directory that shuts this user out, if any does."""
        if self.uid is None or self._can_enter(directory):
            return
        parents = [*reversed(directory.parents), directory]
        closed = next(parent for parent in parents if not self._can_enter(parent))
        raise EmbeddedServerError(
            f"Root can't run Postgres, so it runs as user {self.name}, and that user can't enter"
            f" {closed}. Allow it (chmod o+x {closed}) or choose another data directory with"
            " CHATTER_DATA_DIR."
        )

    def _can_enter(self, directory: Path) -> bool:
        return self.run("test", "-x", directory).returncode == 0


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    return {"PATH": os.defpath} | kept | {"LC_ALL": "C"}
