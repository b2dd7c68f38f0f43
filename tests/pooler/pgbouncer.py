"""A PgBouncer that pools transactions, and gives each one another connection than the last."""

import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from psycopg.conninfo import conninfo_to_dict

from chatter_db.embedded.account import Account
from tests.polling import wait_until

PROGRAM = which("pgbouncer") or which("pgbouncer", path="/usr/sbin")

# The next transaction is on the next connection: what a session keeps is seldom there again.
CONFIGURATION = """
[databases]
{databases}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = {mode}
default_pool_size = 8
min_pool_size = 4
server_round_robin = 1
{settings}
"""


def configured(
    url: str,
    directory: Path,
    port: int,
    *,
    mode: str = "transaction",
    aliases: Mapping[str, str] | None = None,
    settings: str = "",
) -> list[str | Path]:
    """The command of a PgBouncer before `url`, whose files are in `directory`.

    It serves any database by its name; `aliases` are more names, each with what it stands for.
    """
    assert PROGRAM
    server = conninfo_to_dict(url)
    configuration, users = directory / "pgbouncer.ini", directory / "users.txt"
    users.write_text(f'"{server["user"]}" "{server["password"]}"\n')
    place = f"host={server['host']} port={server['port']}"
    configuration.write_text(
        CONFIGURATION.format(
            databases="\n".join(
                f"{name} = {place} {what}" for name, what in {"*": "", **(aliases or {})}.items()
            ),
            listen_port=port,
            users=users,
            mode=mode,
            settings=settings,
        )
    )
    return [PROGRAM, configuration]


@contextmanager
def pgbouncer(url: str, directory: Path, mode: str = "transaction") -> Iterator[str]:
    """`url` by way of a PgBouncer, whose files are in `directory`."""
    server = conninfo_to_dict(url)
    # It refuses to run as root, as Postgres does.
    account = Account.for_cluster(directory / "nothing")
    port = free_port()
    command = configured(url, directory, port, mode=mode)
    with (directory / "pgbouncer.log").open("wb") as log:
        process = account.spawn(command, log, log.fileno())
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), "PgBouncer listens")
        assert process.poll() is None, (directory / "pgbouncer.log").read_text()
        yield (
            f"postgresql://{server['user']}:{server['password']}@127.0.0.1:{port}"
            f"/{server['dbname']}"
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
