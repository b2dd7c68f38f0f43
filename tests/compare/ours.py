"""chatter-db in its ways of writing, and the plain table that is the limit of all of them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from chatter_db import migrating
from chatter_db.queries import checks
from tests.compare.contender import Connection, Contender, replicate, running

PLAIN_TABLE = """
  create table calls (
    id uuid primary key,
    conversation text not null,
    user_name text not null,
    provider text not null,
    model text not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    cost numeric not null,
    answer text not null,
    created_at timestamptz not null default now()
  );
  create index on calls (conversation)
"""


class Plain(Contender):
    """No triggers, no totals: what Postgres can do at best with rows like these."""

    name = "plain table, no triggers (the limit)"
    how = "A table with a primary key and one index, 1,000 rows an insert; questions are GROUP BY."
    driver = "plain"
    batch = 1000
    rounds = 3
    counted = """
      select count(*), sum(prompt_tokens + completion_tokens), sum(cost)
      from calls where conversation like %(label)s
    """
    questions: ClassVar = {
        place: f"select {column}, sum(cost) from calls group by 1 order by 2 desc limit 20"
        for place, column in (
            ("conversation", "conversation"),
            ("model", "model"),
            ("user", "user_name"),
        )
    }

    @property
    def version(self) -> str:
        return ""

    def install(self, cache: Path) -> Path:
        return Path(sys.executable)

    @contextmanager
    def serve(self, url: str, directory: Path, python: Path) -> Iterator[str]:
        with Connection.connect(url) as connection:
            connection.execute(PLAIN_TABLE)
        yield url

    def fill(self, connection: Connection, copies: int) -> None:
        changed = {"id": "gen_random_uuid()", "conversation": "r.conversation || '-' || k"}
        replicate(connection, "calls", changed, copies, "r.conversation like 'w-%'")

    def agreement(self, connection: Connection) -> str:
        return "none kept"


class Chatter(Contender):
    """Rows in batches, by the role that apps have, with a worker beside as in production."""

    name = "chatter-db, batches of 1,000"
    how = (
        "Batches of rows by SQL as `chatter_app`, a commit each, with every trigger on and "
        "`chatter worker` beside; questions are those of `sql/analytics`."
    )
    driver = "chatter"
    batch = 1000
    rounds = 3
    counted = """
      select count(*), sum(m.total_tokens), sum(m.cost)
      from chatter.messages as m join chatter.conversations as c on c.id = m.conversation_id
      where c.external_id like %(label)s and m.model_call
    """
    questions: ClassVar = {
        "conversation": """
          select external_id, total_cost from analytics.dearest_conversations_live
          where place <= 20 order by place
        """,
        "model": """
          select u.provider, u.model, sum(u.cost) as cost
          from analytics.usage_between('1970-01-01'::timestamptz, now() + interval '1 day') as u
          group by 1, 2 order by 3 desc limit 20
        """,
        "user": """
          select p.external_id, sum(u.cost) as cost
          from analytics.user_usage('1970-01-01'::timestamptz, now() + interval '1 day') as u
            left join chatter.users as p on p.id = u.user_id
          group by 1 order by 2 desc limit 20
        """,
    }

    @property
    def version(self) -> str:
        return version("chatter-db")

    def install(self, cache: Path) -> Path:
        return Path(sys.executable)

    @contextmanager
    def serve(self, url: str, directory: Path, python: Path) -> Iterator[str]:
        migrating.migrate(url)
        worker = [str(Path(sys.executable).with_name("chatter")), "worker"]
        environment = {"CHATTER_DATABASE_URL": url}
        with running(worker, environment, directory / "worker.log", answers=lambda: True):
            yield url

    def writer_environment(self, directory: Path) -> dict[str, str]:
        return super().writer_environment(directory) | {
            "CHATTER_SPOOL_DIR": str(directory / "spool")
        }

    def fill(self, connection: Connection, copies: int) -> None:
        """By inserts into the ledger alone: its triggers total them."""
        connection.execute(
            """
            create temporary table written as
              select id, user_id, external_id from chatter.conversations
              where external_id like 'w-%'
            """
        )
        connection.execute(
            """
            insert into chatter.conversations (external_id, user_id)
            select r.external_id || '-' || k, r.user_id
            from written as r cross join generate_series(1, %s) as k
            """,
            [copies],
        )
        # A statement a copy, as a batch of an app would be.
        for copy in range(1, copies + 1):
            connection.execute(
                """
                insert into chatter.messages (
                  conversation_id, role, content, provider_used, model_used, prompt_tokens,
                  completion_tokens, cost, cost_source, response_time_ms
                )
                select n.id, r.role, r.content, r.provider_used, r.model_used, r.prompt_tokens,
                  r.completion_tokens, r.cost, r.cost_source, r.response_time_ms
                from chatter.messages as r
                  join written as c on c.id = r.conversation_id
                  join chatter.conversations as n
                    on n.user_id = c.user_id and n.external_id = c.external_id || '-' || %s::text
                """,
                [copy],
            )
        while (connection.execute("select analytics.fold(100000)").fetchone() or [0])[0]:
            pass

    def agreement(self, connection: Connection) -> str:
        wrong = [c.name for c in checks() if connection.execute(str(c.statement)).fetchone()]
        return f"differ: {', '.join(wrong)}" if wrong else "agree"


class SmallBatches(Chatter):
    name = "chatter-db, batches of 100"
    how = "The same in batches of 100."
    batch = 100
    fills = False


class Imported(Chatter):
    name = "chatter-db, import_file"
    how = "`chatter_db.importing.import_file` of one JSON Lines file: all of it or nothing."
    driver = "importing"
    fills = False
    paced = False


class Recorded(Chatter):
    name = "chatter-db, recorder"
    how = (
        "A LangChain model that answers at once, 50 calls under way, each with a recorder and "
        "waiting for its commit: a run, the person's message and the call, three rows; "
        "the price is from the recorder's list."
    )
    driver = "recorder"
    rounds = 1
    fills = False
