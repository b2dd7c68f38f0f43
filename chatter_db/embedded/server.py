"""Leases of the embedded server: starts it if nobody has, else attaches to it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chatter_db.embedded import binaries, cluster, locks
from chatter_db.embedded.account import Account
from chatter_db.embedded.data_dir import DataDir
from chatter_db.errors import EmbeddedServerError

HOST = "127.0.0.1"
START_SECONDS = 60.0
# Another process may be starting (crash recovery takes time) or stopping the server.
TURN_SECONDS = 120.0
CONNECT_SECONDS = 5
SUPERVISOR = Path(__file__).with_name("run_supervisor.py")


@dataclass(frozen=True)
class Server:
    """A running server: everything a client or a Postgres tool needs to use it."""

    data_dir: Path
    bin_dir: Path
    version: str
    port: int
    password: str = field(repr=False)
    host: str = HOST
    user: str = cluster.USER
    database: str = cluster.DATABASE

    @property
    def url(self) -> str:
        """The database's URL, with the password."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"

    @property
    def log_file(self) -> Path:
        """Where the server logs."""
        return DataDir(self.data_dir).log_file


@contextmanager
def lease(
    data_dir: Path | None = None,
    bin_dir: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Keep the server of a data directory running while the block runs.

    Starts the server, after making its cluster if there is none, or attaches to the one that
    another process or thread started; it stops within a second after the last lease ends,
    however the processes end. Blocks for about 0.7 s to make a cluster, 0.15 s to start the
    server, 0.01 s to attach. A process forked inside the block shares the lease.

    `data_dir` and `bin_dir` default to the settings CHATTER_DATA_DIR and
    CHATTER_POSTGRES_BIN. `settings` are server settings such as `{"fsync": "off"}`; they count
    only if this call starts the server.

    Raises EmbeddedServerError, and UsageError for a user without a home directory.
    """
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "The embedded server does not run on Windows. Use WSL, or set CHATTER_DATABASE_URL"
            " to a Postgres server."
        )
    if data_dir is None or bin_dir is None:
        from chatter_db.settings import default_data_dir
        from chatter_db.settings import settings as configured

        data_dir = data_dir or configured().data_dir or default_data_dir()
        bin_dir = bin_dir or configured().postgres_bin
    with ExitStack() as stack:
        yield _lease(DataDir(data_dir.absolute()), bin_dir, settings or {}, stack)


def wait_until_stopped(data_dir: Path, timeout: float = 10.0) -> None:
    """Wait until no server runs in this data directory, which then may be moved or removed.

    Raises EmbeddedServerError if one still runs after `timeout` seconds.
    """
    data = DataDir(data_dir.absolute())
    deadline = time.monotonic() + timeout
    while data.start_lock.exists():
        try:
            # Who starts a server must not find these locks taken by this look at them.
            with locks.taken(data.start_lock, deadline - time.monotonic()):
                if not (locks.is_taken(data.supervisor_lock) or locks.is_taken(data.server_lock)):
                    return
        except TimeoutError:
            pass
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"The server in {data.path} still runs after {timeout:g} s: another process uses"
                " it, or it is slow to stop. End that process, or wait."
            )
        time.sleep(locks.POLL_SECONDS)


def _lease(
    data: DataDir, bin_dir: Path | None, settings: Mapping[str, str], stack: ExitStack
) -> Server:
    try:
        data.claim()
        with locks.taken(data.start_lock, TURN_SECONDS):
            lease_lock = locks.open_lock(data.leases)
            stack.callback(os.close, lease_lock)
            locks.share(lease_lock)
            return _attach_or_start(data, bin_dir, settings)
    except TimeoutError:
        raise EmbeddedServerError(
            f"Another process has been starting or stopping the server in {data.path} for"
            f" {TURN_SECONDS:g} s. See its log {data.log_file}, end that process, then try again."
        ) from None
    except OSError as error:
        raise EmbeddedServerError(
            f"Can't use {data.path} for the embedded server: {error}. Correct that, or choose"
            " another directory with CHATTER_DATA_DIR."
        ) from error


def _attach_or_start(data: DataDir, bin_dir: Path | None, settings: Mapping[str, str]) -> Server:
    log_start = data.log_size()
    started = False
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if locks.is_taken(data.supervisor_lock):
            if (server := _connect(data)) is not None:
                return server
            time.sleep(locks.POLL_SECONDS)
        elif started:
            raise data.failure("The embedded Postgres did not start", data.log_since(log_start))
        else:
            # A server that outlived its supervisor gets a new one, and may be about to end.
            started = not locks.is_taken(data.server_lock)
            found = _prepare(data, bin_dir, settings)
            log_start = data.log_size()
            _spawn_supervisor(data, found.bin_dir, settings)
    raise data.failure(
        f"The embedded Postgres did not answer within {START_SECONDS:g} s",
        data.log_since(log_start),
    )


def _prepare(data: DataDir, bin_dir: Path | None, settings: Mapping[str, str]) -> binaries.Binaries:
    account = Account.for_cluster(data.cluster)
    account.check_can_enter(data.path)
    found = binaries.find(bin_dir, account, copies=data.path)
    data.rotate_log()
    cluster.ensure(data, account, found, durable=settings.get("fsync") != "off")
    return found


def _spawn_supervisor(data: DataDir, bin_dir: Path, settings: Mapping[str, str]) -> None:
    """Start a supervisor, which detaches itself; it holds its lock when this returns."""
    log_start = data.log_size()
    arguments = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-I", "-S", str(SUPERVISOR)]
    with data.open_log() as log:
        ran = subprocess.run(
            [*command, data.path, bin_dir, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    if ran.returncode != 0:
        raise data.failure(
            f"The embedded server's supervisor ({' '.join(command)}) did not start",
            data.log_since(log_start),
        )


def _connect(data: DataDir) -> Server | None:
    """The server, if it answers."""
    import psycopg

    postmaster = data.postmaster()
    if postmaster is None or not postmaster.ready:
        return None
    password = data.password_file.read_text(encoding="ascii").strip()
    try:
        with psycopg.connect(
            host=HOST,
            port=postmaster.port,
            user=cluster.USER,
            password=password,
            dbname=cluster.DATABASE,
            connect_timeout=CONNECT_SECONDS,
            sslmode="disable",
            gssencmode="disable",
        ) as connection:
            version = connection.info.parameter_status("server_version") or ""
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise EmbeddedServerError(
                f"{data.password_file} does not hold the password of the server's user"
                f" {cluster.USER}. Restore that file."
            ) from None
        return None
    return Server(
        data_dir=data.path,
        bin_dir=data.bin_dir_in_use(),
        version=version.split(" ", maxsplit=1)[0],
        port=postmaster.port,
        password=password,
    )
