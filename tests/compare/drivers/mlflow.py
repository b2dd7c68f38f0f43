"""Writes into MLflow tracing: a trace a call, with its usage, session and user, in background."""

import argparse

import mlflow
from mlflow.entities import SpanType
from mlflow.tracing.client import TracingClient

from tests.compare.drivers.driving import Driver, drive
from tests.compare.workload import Call


class MlflowDriver(Driver):
    def __init__(self, address: str) -> None:
        mlflow.set_tracking_uri(address)
        mlflow.set_experiment("compare")

    def book(self, call: Call) -> int:
        with mlflow.start_span("call", span_type=SpanType.LLM) as span:
            self._describe(span, call)
        return 1

    def finish(self) -> int:
        mlflow.flush_trace_async_logging()
        return 0

    def deliver_twice(self, call: Call) -> None:
        """The requests that the exporter sends, once more."""
        self.book(call)
        self.finish()
        trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
        client = TracingClient()
        client.start_trace(trace.info)
        client.log_spans(trace.info.experiment_id, trace.data.spans)

    def repeat(self, agent: Call, children: list[Call]) -> None:
        with mlflow.start_span("agent", span_type=SpanType.AGENT) as span:
            for child in children:
                self.book(child)
            self._describe(span, agent)

    def _describe(self, span: mlflow.entities.LiveSpan, call: Call) -> None:
        mlflow.update_current_trace(
            metadata={"mlflow.trace.session": call.conversation, "mlflow.trace.user": call.user}
        )
        span.set_outputs(call.answer)
        span.set_attributes(
            {
                "mlflow.llm.model": call.model,
                "mlflow.llm.provider": call.provider,
                "mlflow.chat.tokenUsage": {
                    "input_tokens": call.prompt_tokens,
                    "output_tokens": call.completion_tokens,
                    "total_tokens": call.total_tokens,
                },
            }
        )


def make(options: argparse.Namespace) -> Driver:
    return MlflowDriver(options.address)


if __name__ == "__main__":
    drive(make)
