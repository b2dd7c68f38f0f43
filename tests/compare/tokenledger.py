"""tokenledger: events in a Postgres table, written from a thread of the app."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.compare.contender import Connection, Foreign, replicate, run_or_not

EVENTS = "token_ledger.token_ledger_events"


class TokenLedger(Foreign):
    name = "tokenledger"
    how = (
        "`tokenledger db init` and `upgrade`; events with ids of the app's own to its tracker "
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
    questions = {
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
        command = str(python.with_name("tokenledger"))
        for verb in ("init", "upgrade"):
            run_or_not([command, "db", verb], f"tokenledger db {verb}", {"DATABASE_URL": url})
        yield url

    def fill(self, connection: Connection, copies: int) -> None:
        changed = {"event_id": "gen_random_uuid()", "session_id": "r.session_id || '-' || k"}
        replicate(connection, EVENTS, changed, copies, "r.session_id like 'w-%'")

    def agreement(self, connection: Connection) -> str:
        return "none kept"
