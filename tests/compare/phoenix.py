"""Arize Phoenix: its server on Postgres, written to by OpenTelemetry."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tests.compare.contender import Connection, Foreign, answers, free_port, replicate, running

# Ids of copies are beyond those of all that is written.
STEP = 1_000_000

SESSIONS = """
  from project_sessions as p
    join traces as t on t.project_session_rowid = p.id
    join span_costs as c on c.trace_rowid = t.id
"""


class Phoenix(Foreign):
    name = "Arize Phoenix"
    how = (
        "`phoenix serve` on Postgres; spans with OpenInference attributes by `phoenix.otel` with "
        "`batch=True`, queue raised from 2,048 to 20,000 spans so that none is dropped; cost by "
        "its price list; questions are SQL over `span_costs`."
    )
    key = "phoenix"
    driver = "phoenix"
    counted = f"select count(*), sum(c.total_tokens), sum(c.total_cost) {SESSIONS}" + (
        " where p.session_id like %(label)s"
    )
    questions: ClassVar = {
        "conversation": f"select p.session_id, sum(c.total_cost) {SESSIONS}"
        " group by 1 order by 2 desc nulls last limit 20",
        "model": """
          select m.name, sum(c.total_cost)
          from span_costs as c join generative_models as m on m.id = c.model_id
          group by 1 order by 2 desc nulls last limit 20
        """,
        "user": """
          select s.attributes #>> '{user,id}', sum(c.total_cost)
          from span_costs as c join spans as s on s.id = c.span_rowid
          group by 1 order by 2 desc nulls last limit 20
        """,
    }

    @contextmanager
    def serve(self, url: str, directory: Path, python: Path) -> Iterator[str]:
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        environment = {
            "PHOENIX_SQL_DATABASE_URL": url,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_WORKING_DIR": str(directory),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        command = [str(python.with_name("phoenix")), "serve"]
        with running(
            command, environment, directory / "phoenix.log", lambda: answers(f"{address}/healthz")
        ):
            yield address

    def writer_environment(self, directory: Path) -> dict[str, str]:
        return super().writer_environment(directory) | {"OTEL_BSP_MAX_QUEUE_SIZE": "20000"}

    def fill(self, connection: Connection, copies: int) -> None:
        sessions = "(select id from project_sessions where session_id like 'w-%')"
        traces = f"(select id from traces where project_session_rowid in {sessions})"
        moved = {"id": f"r.id + k * {STEP}"}
        trace = {"trace_rowid": f"r.trace_rowid + k * {STEP}"}
        originals = f"r.trace_rowid in {traces} and r.id < {STEP}"
        for table, changed, where in (
            (
                "project_sessions",
                moved | {"session_id": "r.session_id || '-' || k"},
                f"r.id in {sessions}",
            ),
            (
                "traces",
                moved
                | {
                    "trace_id": "r.trace_id || '-' || k",
                    "project_session_rowid": f"r.project_session_rowid + k * {STEP}",
                },
                f"r.project_session_rowid in {sessions} and r.id < {STEP}",
            ),
            ("spans", moved | trace | {"span_id": "r.span_id || '-' || k"}, originals),
            (
                "span_costs",
                moved | trace | {"span_rowid": f"r.span_rowid + k * {STEP}"},
                originals,
            ),
            (
                "span_cost_details",
                moved | {"span_cost_id": f"r.span_cost_id + k * {STEP}"},
                f"r.span_cost_id in (select id from span_costs as r where {originals})",
            ),
        ):
            replicate(connection, table, changed, copies, where)

    def agreement(self, connection: Connection) -> str:
        row = connection.execute(
            """
            select count(*) from spans as s left join span_costs as c on c.span_rowid = s.id
            where c.total_tokens is distinct from
              s.llm_token_count_prompt + s.llm_token_count_completion
            """
        ).fetchone()
        assert row is not None
        return f"differ: {row[0]} spans without their cost row" if row[0] else "agree"
