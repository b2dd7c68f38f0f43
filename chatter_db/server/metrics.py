"""Figures for Prometheus: requests as this process saw them, executions as the books have them."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatter_db.ledger import Chatter
from chatter_db.monitoring import MonitoringService


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "chatter_http_requests",
            "Requests answered by this process.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "chatter_http_request_seconds",
            "From a request to the end of its answer, in seconds.",
            ["method", "route"],
            registry=self._registry,
        )
        self._active = Gauge(
            "chatter_executions_running",
            "Executions that run at this moment, in all processes.",
            registry=self._registry,
        )
        self._lost = Gauge(
            "chatter_records_lost",
            "Records of this process that could not be booked.",
            registry=self._registry,
        )
        self._reduced = Gauge(
            "chatter_records_reduced",
            "Records of this process that Postgres took only without their texts.",
            registry=self._registry,
        )
        self._spooled = Gauge(
            "chatter_spooled_bytes",
            "Records of this process that wait in its spool, in bytes.",
            registry=self._registry,
        )
        self._up = Gauge(
            "chatter_database_up", "Whether Postgres answered.", registry=self._registry
        )

    async def read(self, chatter: Chatter) -> CollectorRegistry:
        """The registry, with what the books say now. What they don't say is NaN, never 0."""
        health = await MonitoringService(chatter).get_system_health()
        self._up.set(health.active is not None)
        self._active.set(float("nan") if health.active is None else health.active)
        self._lost.set(health.lost_records)
        self._reduced.set(health.reduced_records)
        self._spooled.set(health.spooled_bytes)
        return self._registry


class Measured:
    """Counts and times every request, under its route's template: never under an id."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = _template(scope)
            self._metrics.requests.labels(scope["method"], route, status).inc()
            self._metrics.seconds.labels(scope["method"], route).observe(
                time.perf_counter() - begin
            )


def _template(scope: Scope) -> str:
    route = scope.get("route")
    if route is None:
        for candidate in scope["app"].routes:
            if candidate.matches(scope)[0] is not Match.NONE:
                route = candidate
                break
    return getattr(route, "path", "none")
