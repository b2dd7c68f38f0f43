"""Writes into Arize Phoenix: OpenTelemetry spans with OpenInference attributes, batched."""

import argparse
import time
from typing import Any

from openinference.semconv.trace import SpanAttributes
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Span, set_span_in_context
from phoenix.otel import HTTPSpanExporter, register

from tests.compare.drivers.driving import Driver, drive
from tests.compare.workload import Call


class PhoenixDriver(Driver):
    def __init__(self, address: str) -> None:
        self._endpoint = f"{address}/v1/traces"
        self._provider: Any = register(
            endpoint=self._endpoint, batch=True, set_global_tracer_provider=False, verbose=False
        )
        self._tracer = self._provider.get_tracer("compare")

    def book(self, call: Call) -> int:
        self._span(call).end()
        return 1

    def finish(self) -> int:
        self._provider.force_flush()
        return 0

    def deliver_twice(self, call: Call) -> None:
        """As an exporter does that tries again: the same span in two requests."""
        span: Any = self._span(call)
        span.end()
        self.finish()
        exporter: SpanExporter = HTTPSpanExporter(endpoint=self._endpoint)
        exporter.export([span])

    def repeat(self, agent: Call, children: list[Call]) -> None:
        around = self._span(agent, kind="AGENT")
        for child in children:
            self._span(child, parent=around).end()
        around.end()

    def _span(self, call: Call, kind: str = "LLM", parent: Span | None = None) -> Any:
        return self._tracer.start_span(
            "call",
            context=None if parent is None else set_span_in_context(parent),
            start_time=time.time_ns() - 800_000_000,
            attributes={
                SpanAttributes.OPENINFERENCE_SPAN_KIND: kind,
                SpanAttributes.SESSION_ID: call.conversation,
                SpanAttributes.USER_ID: call.user,
                SpanAttributes.LLM_PROVIDER: call.provider,
                SpanAttributes.LLM_MODEL_NAME: call.model,
                SpanAttributes.LLM_TOKEN_COUNT_PROMPT: call.prompt_tokens,
                SpanAttributes.LLM_TOKEN_COUNT_COMPLETION: call.completion_tokens,
                SpanAttributes.LLM_TOKEN_COUNT_TOTAL: call.total_tokens,
                SpanAttributes.OUTPUT_VALUE: call.answer,
            },
        )


def make(options: argparse.Namespace) -> Driver:
    return PhoenixDriver(options.address)


if __name__ == "__main__":
    drive(make)
