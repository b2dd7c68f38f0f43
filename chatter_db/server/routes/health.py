"""/healthz, /readyz, /metrics: for whoever runs the server."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from chatter_db.analytics import Worker
from chatter_db.monitoring import MonitoringService
from chatter_db.server.identity import Books
from chatter_db.server.problems import documented

router = APIRouter(tags=["operation"])

_UNDONE = "The background work is not done by this process; its log says why."


class Health(BaseModel):
    """`ok` or `unwell`, and what wants attention."""

    status: str
    reasons: list[str] = []


@router.get("/healthz")
async def healthz() -> Health:
    """Whether the process lives; asks nobody else."""
    return Health(status="ok")


@router.get("/readyz", responses=documented(503))
async def readyz(request: Request, chatter: Books, response: Response) -> Health:
    """Whether requests can be served: whether the database answers.

    What keeps no request from its answer is told of, and leaves it at `ok`: a slow database,
    a lost record, a background worker of this process that gets nothing done.
    """
    health = await MonitoringService(chatter).get_system_health()
    worker: Worker | None = request.app.state.worker
    # Why is in the log: who asks here need not have signed in.
    undone = [_UNDONE] if worker is not None and worker.failure is not None else []
    if health.active is not None:
        return Health(status="ok", reasons=health.reasons + undone)
    response.status_code = 503
    return Health(status="unwell", reasons=health.reasons + undone)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, chatter: Books) -> Response:
    """Prometheus text: requests of this process, executions of all of them."""
    registry = await request.app.state.metrics.read(chatter)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
