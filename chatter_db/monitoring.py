"""What runs and ran, read from the books: the same numbers in every process."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select

from chatter_db.errors import UsageError
from chatter_db.ledger import Chatter, default_chatter
from chatter_db.models import ExecutionStatus, WorkflowExecution


@dataclass(frozen=True)
class WorkflowOperation:
    """One execution, as it stands in the books at this moment."""

    execution_id: UUID
    conversation_id: UUID | None
    workflow_name: str
    status: ExecutionStatus
    started_at: datetime
    duration_ms: float | None
    """Milliseconds from start to end; None while it runs."""
    model_calls: int
    tool_calls: int
    prompt_tokens: int
    completion_tokens: int
    token_usage: int
    """All tokens of the run: prompt and completion, as totalled by the provider."""
    cost: Decimal
    error_type: str | None


@dataclass(frozen=True)
class WorkflowStats:
    """Executions counted by status, and the latest of them, oldest first."""

    by_status: Mapping[ExecutionStatus, int]
    workflow_ops: list[WorkflowOperation]

    @property
    def total(self) -> int:
        return sum(self.by_status.values())

    @property
    def active(self) -> int:
        return self.by_status.get("running", 0)


class MonitoringService:
    """Thin over the database; keeps nothing in the process."""

    def __init__(self, chatter: Chatter) -> None:
        self._chatter = chatter

    async def get_workflow_stats(self, *, limit: int = 100) -> WorkflowStats:
        """Counts of all executions, with the `limit` latest ones.

        Raises UsageError for a limit below 1 or above 10,000.
        """
        if not 1 <= limit <= 10_000:
            raise UsageError(f"limit must be from 1 to 10000, not {limit}.")
        counts = select(WorkflowExecution.status, func.count()).group_by(WorkflowExecution.status)
        latest = (
            select(WorkflowExecution)
            .order_by(WorkflowExecution.started_at.desc(), WorkflowExecution.id.desc())
            .limit(limit)
        )
        async with self._chatter.session() as session:
            # One snapshot for both answers.
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            by_status = {row[0]: row[1] for row in await session.execute(counts)}
            rows = (await session.scalars(latest)).all()
        return WorkflowStats(by_status, [_operation(row) for row in reversed(rows)])


async def get_monitoring_service(chatter: Chatter | None = None) -> MonitoringService:
    """The monitoring of `chatter`, by default of the process's own."""
    return MonitoringService(chatter or await default_chatter())


def _operation(row: WorkflowExecution) -> WorkflowOperation:
    duration = row.finished_at - row.started_at if row.finished_at else None
    return WorkflowOperation(
        execution_id=row.id,
        conversation_id=row.conversation_id,
        workflow_name=row.workflow_name,
        status=row.status,
        started_at=row.started_at,
        duration_ms=duration.total_seconds() * 1000 if duration is not None else None,
        model_calls=row.model_calls,
        tool_calls=row.tool_calls,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        token_usage=row.total_tokens,
        cost=row.total_cost,
        error_type=row.error_type,
    )
