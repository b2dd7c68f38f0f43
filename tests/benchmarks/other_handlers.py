"""The callback handlers of Langfuse and MLflow, where they are installed (the group bench).

Each as its documentation says for LangChain, sending in the background to where it keeps its
traces: Langfuse to an HTTP server on loopback that takes all it is sent, MLflow to SQLite. Neither
makes a call wait until what it says of it is kept.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from langchain_core.callbacks import BaseCallbackHandler

Handlers = Callable[[], list[BaseCallbackHandler]]


def installed() -> list[str]:
    """Which of them can be measured here."""
    return [name for name in OTHERS if importlib.util.find_spec(name)]


class _TakesAll(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def langfuse(_: Path) -> Iterator[Handlers]:
    """https://langfuse.com/docs/integrations/langchain."""
    with ExitStack() as stack:
        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _TakesAll))
        Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        from langfuse import Langfuse
        from langfuse.langchain import CallbackHandler

        client = Langfuse(
            public_key="pk-lf-bench",
            secret_key="sk-lf-bench",
            base_url=f"http://127.0.0.1:{server.server_port}",
        )
        stack.callback(client.shutdown)
        yield lambda: [CallbackHandler()]


@contextmanager
def mlflow(directory: Path) -> Iterator[Handlers]:
    """https://mlflow.org/docs/latest/genai/tracing/integrations/listing/langchain."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "true"
    import mlflow as package
    from mlflow.langchain.langchain_tracer import MlflowLangchainTracer

    package.set_tracking_uri(f"sqlite:///{directory / 'mlflow.db'}")
    package.create_experiment("bench", artifact_location=(directory / "traces").as_uri())
    package.set_experiment("bench")
    yield lambda: [MlflowLangchainTracer()]
    package.flush_trace_async_logging()


OTHERS = {"langfuse": langfuse, "mlflow": mlflow}
