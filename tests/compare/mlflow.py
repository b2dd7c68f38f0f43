"""MLflow tracing: its tracking server on Postgres, written to by its client in background."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tests.compare.contender import Connection, Foreign, answers, free_port, replicate, running


class Mlflow(Foreign):
    name = "MLflow tracing"
    how = (
        "`mlflow server` on Postgres; `mlflow.start_span` with token usage, session and user, "
        "logged asynchronously, queue raised from 1,000 to 20,000 so that none is dropped; cost "
        "by its price list; questions are SQL over `trace_info` and `spans`."
    )
    key = "mlflow"
    driver = "mlflow"
    counted = """
      select count(*), sum(total_tokens), sum(total_cost)
      from trace_info where session_id like %(label)s
    """
    # A trace's totals leave out what a span repeats; the question by model reads the spans.
    cost_by_model = """
      select sum(s.total_cost) from spans as s join trace_info as t on t.request_id = s.trace_id
      where t.session_id like %(label)s
    """
    questions: ClassVar = {
        "conversation": """
          select session_id, sum(total_cost) from trace_info
          group by 1 order by 2 desc nulls last limit 20
        """,
        "model": """
          select model_name, sum(total_cost) from spans
          group by 1 order by 2 desc nulls last limit 20
        """,
        "user": """
          select m.value, sum(t.total_cost)
          from trace_info as t
            join trace_request_metadata as m
              on m.request_id = t.request_id and m.key = 'mlflow.trace.user'
          group by 1 order by 2 desc nulls last limit 20
        """,
    }

    @contextmanager
    def serve(self, url: str, directory: Path, python: Path) -> Iterator[str]:
        store = url.replace("postgresql:", "postgresql+psycopg2:")
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        command = [str(python.with_name("mlflow")), "server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--backend-store-uri", store]
        command += ["--default-artifact-root", str(directory / "artifacts")]
        environment = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "PATH": f"{python.parent}:/usr/bin:/bin",
        }
        log = directory / "mlflow.log"
        with running(command, environment, log, lambda: answers(f"{address}/health")):
            yield address

    def writer_environment(self, directory: Path) -> dict[str, str]:
        return super().writer_environment(directory) | {
            "MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE": "20000",
            "OTEL_BSP_MAX_QUEUE_SIZE": "20000",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def fill(self, connection: Connection, copies: int) -> None:
        written = "(select request_id from trace_info where session_id like 'w-%%')"
        written = written.replace("%%", "%")
        of_trace = {"trace_id": "r.trace_id || '-' || k"}
        of_request = {"request_id": "r.request_id || '-' || k"}
        connection.execute("create temporary table written as " + written[1:-1])
        mine = "in (select request_id from written)"
        session = "r.session_id || '-' || k"
        value = "case when r.key = 'mlflow.trace.session' then r.value || '-' || k else r.value end"
        for table, changed in (
            ("trace_info", of_request | {"session_id": session}),
            ("trace_tags", of_request),
            ("trace_request_metadata", of_request | {"value": value}),
            ("trace_metrics", of_request),
        ):
            replicate(connection, table, changed, copies, f"r.request_id {mine}")
        for table in ("spans", "span_metrics"):
            replicate(connection, table, of_trace, copies, f"r.trace_id {mine}")

    def agreement(self, connection: Connection) -> str:
        row = connection.execute(
            """
            select count(*) from trace_info as t
            where abs(coalesce(t.total_cost, 0) - (
              select coalesce(sum(s.total_cost), 0) from spans as s
              where s.trace_id = t.request_id and s.type = 'LLM'
            )) > 1e-12
            """
        ).fetchone()
        assert row is not None
        return f"differ: {row[0]} traces" if row[0] else "agree"
