"""An embedded Postgres server, for a laptop or a test, that lives as long as it is used.

    from chatter_db.embedded import lease

    with lease() as server:
        psycopg.connect(server.url)

How it holds together, by file locks that the kernel drops when a process dies:

- every user holds `leases.lock` shared;
- a supervisor (a detached process) waits for that lock exclusively, then stops
  Postgres; it holds `supervisor.lock` while it lives;
- Postgres itself inherits `server.lock`, so nobody has to guess from a pid
  whether it runs;
- who starts or stops the server holds `chatter-db.lock`.
"""

from chatter_db.embedded.binaries import find_client
from chatter_db.embedded.server import Server, lease, wait_until_stopped

__all__ = ["Server", "find_client", "lease", "wait_until_stopped"]
