"""tokenledger: events in a Postgres table, written from a thread of the app."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tests.compare.contender import Connection, Foreign, replicate, run_or_not

# What its tracker does by itself; the command `tokenledger db init` of its README says that it is
# not implemented yet.
MAKE_TABLES = """
import sys, tokenledger
tokenledger.configure(database_url=sys.argv[1])
tokenledger.get_tracker().initialize(create_tables=True)
"""

EVENTS = "token_ledger.token_ledger_events"


class TokenLedger(Foreign):
    name = "tokenledger"
    how = (
        "Tables made by its tracker (`tokenledger db init` is not implemented in this version); "
        "events with ids of the app's own to the tracker "
        "with the defaults of its README (background, batches, every 5 s); cost given by the "
        "app, as a float; questions are the SQL of its `TokenLedgerQueries`."
    )
    key = "tokenledger"
    driver = "tokenledger"
    rounds = 3
    counted = f"""
      select count(*), sum(total_tokens), sum(cost_usd) from {EVENTS}
      where session_id like %(label)s
    """
    questions: ClassVar = {
        place: f"""
          select {column}, coalesce(sum(cost_usd), 0), count(*), coalesce(sum(total_tokens), 0)
          from {EVENTS} where timestamp >= now() - interval '30 days'
          group by 1 order by 2 desc limit 20
        """
        for place, column in (
            ("conversation", "session_id"),
            ("model", "model"),
            ("user", "user_id"),
        )
    }

    @contextmanager
    def serve(self, url: str, directory: Path, python: Path) -> Iterator[str]:
        with Connection.connect(url) as connection:
            connection.execute("create schema token_ledger")
        run_or_not([str(python), "-c", MAKE_TABLES, url], "making its tables")
        yield url

    def fill(self, connection: Connection, copies: int) -> None:
        changed = {"event_id": "gen_random_uuid()", "session_id": "r.session_id || '-' || k"}
        replicate(connection, EVENTS, changed, copies, "r.session_id like 'w-%'")

    def agreement(self, connection: Connection) -> str:
        return "none kept"
