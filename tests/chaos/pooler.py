"""PgBouncer between some of the clients and the proxy, pooling transactions."""

import os
import signal
from pathlib import Path

from chatter_db.embedded.account import Account
from tests.chaos.load import STATEMENT_TIMEOUT
from tests.chaos.members import Member
from tests.pooler.pgbouncer import PROGRAM, configured, free_port

NO_POOLER = "" if PROGRAM else "there is no pgbouncer here"

LIMITED = "limited"
"""The database under a name that gives its sessions a statement timeout."""

# It tells its clients at once that Postgres is away, and tries again as often as they do.
SETTINGS = """
server_login_retry = 1
server_connect_timeout = 5
query_wait_timeout = 10
"""


class Pooler:
    """A PgBouncer before the database at `url`, whose files are in `directory`."""

    def __init__(self, url: str, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        port = free_port()
        base, _, database = url.rpartition("/")
        self.url = f"{base.rpartition(':')[0]}:{port}/{database}"
        self.limited_url = f"{self.url.rpartition('/')[0]}/{LIMITED}"
        timeout = round(STATEMENT_TIMEOUT.total_seconds() * 1000)
        command = configured(
            url,
            directory,
            port,
            # By the database's name, because PgBouncer refuses a session's own options.
            aliases={
                LIMITED: f"dbname={database} connect_query='set statement_timeout = {timeout}'"
            },
            settings=SETTINGS,
        )
        if os.geteuid() == 0:
            command += ["-u", Account.for_cluster(directory / "nothing").name]
        # What ends it in order, and with which code, is another in each version.
        self.member = Member(
            "pooler",
            [str(part) for part in command],
            {},
            "process up",
            stopped_by=signal.SIGKILL,
        )
