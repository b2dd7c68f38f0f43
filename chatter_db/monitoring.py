"""What runs and ran, read from the books: the same numbers in every process.

Workflows on LangGraph are tracked by the recorder. The tracking calls here are for
code that has none: they write the same rows, and the same triggers total them.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from chatter_db.database import refusals_told, said
from chatter_db.errors import DatabaseUnavailable, UsageError
from chatter_db.ledger import Chatter, chosen_chatter
from chatter_db.models import (
    MAX_COST,
    Conversation,
    CostSource,
    ExecutionStatus,
    Message,
    WorkflowExecution,
    known_cost,
)
from chatter_db.recorder.arguments import (
    json_object,
    require_count,
    require_string,
    require_text,
    row_id,
)
from chatter_db.recorder.rows import error_columns

ENDS = ("completed", "failed", "cancelled")
"""How a tracked workflow may finish."""

SLOW_DATABASE_MS = 500
"""A round trip to Postgres above this is reported as a reason to look."""


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
    cost: Decimal | None
    """US dollars; None if no model call's cost is known."""
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


@dataclass(frozen=True)
class SystemHealth:
    """How the system is, and why it isn't well if it isn't."""

    healthy: bool
    reasons: list[str]
    """What wants attention, in words; empty when all is well."""
    database_ms: float | None
    """A round trip to Postgres, in milliseconds; None if nobody answered."""
    active: int | None
    """Executions that run at this moment; None if the database didn't say."""
    oldest_active: datetime | None
    lost_records: int
    """Records of this process that could not be booked; see the log."""
    reduced_records: int
    """Those that Postgres took only without their texts; see the log."""
    spooled_bytes: int
    """What waits in the spool of this process until Postgres takes it."""


class MonitoringService:
    """Thin over the database; keeps nothing in the process."""

    def __init__(self, chatter: Chatter) -> None:
        self._chatter = chatter

    async def start_workflow_tracking(
        self,
        workflow_name: str,
        *,
        conversation_id: UUID | None = None,
        correlation_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> UUID:
        """Begins an execution, visible while it runs; returns its id.

        It belongs to the conversation given, else to a new one. Raises UsageError
        for an unknown conversation, a name or correlation id that isn't 1 to 500 characters long
        or has a NUL, and metadata that is no JSON.
        """
        require_text("workflow_name", require_string("workflow_name", workflow_name))
        require_text("correlation_id", correlation_id)
        extra = json_object("metadata", metadata)
        if conversation_id is not None:
            conversation_id = row_id("conversation_id", conversation_id)
        async with self._booking("The workflow") as session:
            if conversation_id is None:
                conversation_id = await session.scalar(
                    insert(Conversation).returning(Conversation.id)
                )
            conversation = await session.get(Conversation, conversation_id)
            if conversation is None:
                raise UsageError(f"There is no conversation {conversation_id}.")
            made: UUID | None = await session.scalar(
                insert(WorkflowExecution)
                .values(
                    conversation_id=conversation.id,
                    user_id=conversation.user_id,
                    workflow_name=workflow_name,
                    correlation_id=correlation_id,
                    extra=extra,
                )
                .returning(WorkflowExecution.id)
            )
        assert made is not None
        return made

    async def update_workflow_tracking(
        self,
        execution_id: UUID,
        *,
        provider: str | None = None,
        model: str | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        cost: Decimal | None = None,
        cost_source: CostSource = "provider",
        response_time_ms: float | None = None,
    ) -> UUID:
        """Books one model call of the execution; returns the id of its row.

        Totals are no argument: Postgres adds this row to them. What is not known stays
        None and counts as unknown, not as 0. Raises UsageError for an unknown
        execution or figures that can't be (negative, or a float for money).
        """
        require_text("provider", provider)
        require_text("model", model)
        require_count("prompt_tokens", prompt_tokens)
        require_count("completion_tokens", completion_tokens)
        if cost is not None and not isinstance(cost, Decimal):
            raise UsageError(f"cost must be a Decimal, exact; not {type(cost).__name__}.")
        # Not left to Postgres: what asyncpg makes of 1E+200000 is 0.
        if cost is not None and not (cost.is_finite() and 0 <= cost < MAX_COST):
            raise UsageError(f"cost must be from 0 to less than {MAX_COST}, not {cost}.")
        async with self._booking("The figures") as session:
            execution = await self._execution(session, execution_id)
            made: UUID | None = await session.scalar(
                insert(Message)
                .values(
                    conversation_id=execution.conversation_id,
                    execution_id=execution_id,
                    role="assistant",
                    kind="step",
                    provider_used=provider,
                    model_used=model,
                    prompt_tokens=prompt_tokens,
                    completion_tokens=completion_tokens,
                    cost=cost,
                    cost_source=cost_source if cost is not None else None,
                    response_time_ms=response_time_ms,
                    correlation_id=execution.correlation_id,
                )
                .returning(Message.id)
            )
        assert made is not None
        return made

    async def finish_workflow_tracking(
        self,
        execution_id: UUID,
        status: ExecutionStatus = "completed",
        *,
        error: BaseException | None = None,
    ) -> None:
        """Ends an execution, `failed` if there is an `error`. An end that is booked stays.

        Raises UsageError for an unknown execution, another status than completed,
        failed or cancelled, and an `error` that is no exception.
        """
        if error is not None and not isinstance(error, BaseException):
            raise UsageError(f"error must be the exception itself, not {type(error).__name__}.")
        status = "failed" if error is not None else status
        if status not in ENDS:
            raise UsageError(f"status must be one of {', '.join(ENDS)}, not {status!r}.")
        async with self._chatter.session() as session, session.begin():
            await self._execution(session, execution_id)
            await session.execute(
                update(WorkflowExecution)
                .where(WorkflowExecution.id == execution_id, WorkflowExecution.status == "running")
                .values(status=status, **error_columns(error))
            )

    async def get_system_health(self) -> SystemHealth:
        """How the system is at this moment. Never raises: what fails is a reason."""
        reasons: list[str] = []
        running = (
            select(func.count(), func.min(WorkflowExecution.started_at))
            .select_from(WorkflowExecution)
            .where(WorkflowExecution.status == "running")
        )
        database_ms = active = oldest = None
        begin = time.perf_counter()
        try:
            async with self._chatter.session() as session:
                await session.execute(select(1))
                database_ms = (time.perf_counter() - begin) * 1000
                active, oldest = (await session.execute(running)).one()
        except (DBAPIError, DatabaseUnavailable, OSError) as error:
            reasons.append(f"Postgres: {said(error)}")
        if database_ms is not None and database_ms > SLOW_DATABASE_MS:
            reasons.append(f"Postgres took {database_ms:.0f} ms to answer.")
        lost = self._chatter.lost_records
        if lost:
            reasons.append(f"{lost} record(s) of this process were lost; see its log.")
        return SystemHealth(
            healthy=not reasons,
            reasons=reasons,
            database_ms=database_ms,
            active=active,
            oldest_active=oldest,
            lost_records=lost,
            reduced_records=self._chatter.reduced_records,
            spooled_bytes=self._chatter.spooled_bytes,
        )

    @asynccontextmanager
    async def _booking(self, what: str) -> AsyncIterator[AsyncSession]:
        """A transaction; raises UsageError if a value of `what` doesn't go into the books."""
        with refusals_told(what):
            async with self._chatter.session() as session, session.begin():
                yield session

    async def _execution(self, session: AsyncSession, execution_id: UUID) -> WorkflowExecution:
        execution = await session.get(WorkflowExecution, row_id("execution_id", execution_id))
        if execution is None:
            raise UsageError(f"There is no execution {execution_id}.")
        return execution

    async def get_workflow_stats(self, *, limit: int = 100) -> WorkflowStats:
        """Counts of all executions, with the `limit` latest ones.

        Raises UsageError for a limit below 1 or above 10,000.
        """
        if not isinstance(limit, int) or not 1 <= limit <= 10_000:
            raise UsageError(f"limit must be from 1 to 10000, not {limit!r}.")
        counts = select(WorkflowExecution.status, func.count()).group_by(WorkflowExecution.status)
        latest = (
            select(WorkflowExecution, known_cost())
            .order_by(WorkflowExecution.started_at.desc(), WorkflowExecution.id.desc())
            .limit(limit)
        )
        async with self._chatter.session() as session:
            # One snapshot for both answers.
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            by_status = {row[0]: row[1] for row in await session.execute(counts)}
            rows = (await session.execute(latest)).all()
        return WorkflowStats(by_status, [_operation(run, cost) for run, cost in reversed(rows)])


async def get_monitoring_service(chatter: Chatter | None = None) -> MonitoringService:
    """The monitoring of `chatter`, by default of the process's own."""
    return MonitoringService(await chosen_chatter(chatter))


def _operation(row: WorkflowExecution, cost: Decimal | None) -> WorkflowOperation:
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
        cost=cost,
        error_type=row.error_type,
    )
