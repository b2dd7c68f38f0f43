"""SQLAlchemy models of the schema `chatter`.

The columns are described in the database (`\\d+ chatter.messages` in psql). A
test compares these models with the catalog, so that the two can't disagree.
Columns marked `_kept` are written by triggers; Postgres refuses anybody else.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, NewType
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Computed,
    DateTime,
    Double,
    FetchedValue,
    ForeignKey,
    Identity,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    Text,
    case,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

UserRole = Literal["user", "admin"]
ConversationStatus = Literal["active", "archived", "deleted"]
ExecutionStatus = Literal["running", "completed", "failed", "cancelled", "abandoned"]
Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["turn", "step"]
CallStatus = Literal["completed", "failed", "cancelled"]
UsageStatus = Literal["reported", "estimated", "unknown"]
CostSource = Literal["provider", "computed", "imported"]
EventCategory = Literal["workflow", "conversation", "security", "analytics", "alert"]
Severity = Literal["low", "medium", "high", "critical"]
Subject = Literal["ip_address", "user_id", "api_key_id"]
ToolCallStatus = Literal["requested", "running", "completed", "failed", "cancelled"]

# Limits of columns, as their checks have them.
MAX_NAME = 500
"""Characters of a name or id that the host app gives."""

MAX_LEVELS = 100
"""Of nested JSON."""

MAX_TITLE = 2000
"""Characters of a conversation's title."""

MAX_CONTENT_BYTES = 8 * 1024 * 1024
"""Of a message's content, in UTF-8."""

MAX_TOKENS = 1_000_000_000
"""Of each count of a message but their total, which may be twice that."""

MAX_COST = 1_000_000
"""US dollars that the cost of a message stays below."""

Xid8 = NewType("Xid8", str)
"""A transaction's number, 64 bits."""


class _Xid8(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


class Base(DeclarativeBase):
    metadata = MetaData(schema="chatter")
    type_annotation_map = {  # noqa: RUF012 - the name and form SQLAlchemy looks for
        str: Text,
        int: BigInteger,
        bool: Boolean,
        bytes: LargeBinary,
        float: Double,
        Decimal: Numeric,
        datetime: DateTime(timezone=True),
        timedelta: Interval,
        Xid8: _Xid8,
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
    }


def _default(**options: Any) -> Any:
    """A column that Postgres fills when the insert leaves it out."""
    return mapped_column(options.pop("name", None), server_default=FetchedValue(), **options)


_kept = _default


class User(Base):
    __tablename__ = "users"

    id: Mapped[UUID] = _default(primary_key=True)
    external_id: Mapped[str] = mapped_column(unique=True)
    role: Mapped[UserRole] = _default(type_=Text)
    # `metadata` is taken by SQLAlchemy on the class, not in the table.
    extra: Mapped[dict[str, Any]] = _default(name="metadata")
    created_at: Mapped[datetime] = _default()


class Conversation(Base):
    __tablename__ = "conversations"

    id: Mapped[UUID] = _default(primary_key=True)
    external_id: Mapped[str | None]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey(User.id, ondelete="RESTRICT"))
    title: Mapped[str | None]
    status: Mapped[ConversationStatus] = _default(type_=Text)
    extra: Mapped[dict[str, Any]] = _default(name="metadata")
    created_at: Mapped[datetime] = _default()
    message_count: Mapped[int] = _kept()
    prompt_tokens: Mapped[int] = _kept()
    completion_tokens: Mapped[int] = _kept()
    total_tokens: Mapped[int] = _kept()
    total_cost: Mapped[Decimal] = _kept()
    unpriced_calls: Mapped[int] = _kept()
    last_message_at: Mapped[datetime | None] = _kept()


class WorkflowExecution(Base):
    __tablename__ = "workflow_executions"

    id: Mapped[UUID] = _default(primary_key=True)
    conversation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey(Conversation.id, ondelete="RESTRICT")
    )
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey(User.id, ondelete="RESTRICT"))
    workflow_name: Mapped[str]
    status: Mapped[ExecutionStatus] = _default(type_=Text)
    correlation_id: Mapped[str | None]
    started_at: Mapped[datetime] = _default()
    finished_at: Mapped[datetime | None]
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]
    extra: Mapped[dict[str, Any]] = _default(name="metadata")
    model_calls: Mapped[int] = _kept()
    tool_calls: Mapped[int] = _kept()
    prompt_tokens: Mapped[int] = _kept()
    completion_tokens: Mapped[int] = _kept()
    total_tokens: Mapped[int] = _kept()
    total_cost: Mapped[Decimal] = _kept()
    recorder_id: Mapped[UUID | None]


class RecorderProcess(Base):
    __tablename__ = "recorders"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    host: Mapped[str]
    process_id: Mapped[int]
    started_at: Mapped[datetime] = _default()
    heartbeat_at: Mapped[datetime] = _default()
    stopped_at: Mapped[datetime | None]


class Message(Base):
    __tablename__ = "messages"

    id: Mapped[UUID] = _default(primary_key=True)
    # References that the totals trigger checks; see sql/schema/130_messages.sql.
    conversation_id: Mapped[UUID]
    execution_id: Mapped[UUID | None]
    role: Mapped[Role] = mapped_column(Text)
    kind: Mapped[Kind] = _default(type_=Text)
    content: Mapped[str | None]
    tool_calls: Mapped[list[dict[str, Any]] | None]
    tool_call_id: Mapped[str | None]
    provider_used: Mapped[str | None]
    model_used: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    total_tokens: Mapped[int | None] = _default()
    cache_read_tokens: Mapped[int | None]
    cache_write_tokens: Mapped[int | None]
    reasoning_tokens: Mapped[int | None]
    cost: Mapped[Decimal | None]
    cost_source: Mapped[CostSource | None] = mapped_column(Text)
    usage_status: Mapped[UsageStatus | None] = _default(type_=Text)
    usage: Mapped[dict[str, Any] | None]
    response_time_ms: Mapped[float | None]
    time_to_first_token_ms: Mapped[float | None]
    finish_reason: Mapped[str | None]
    status: Mapped[CallStatus] = _default(type_=Text)
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]
    correlation_id: Mapped[str | None]
    extra: Mapped[dict[str, Any]] = _default(name="metadata")
    created_at: Mapped[datetime] = _default()
    model_call: Mapped[bool] = mapped_column(Computed("", persisted=True))


def unpriced_calls(run: type[WorkflowExecution] = WorkflowExecution) -> ColumnElement[int]:
    """How many model calls of the run that is selected have no known cost."""
    calls = select(func.count()).where(Message.execution_id == run.id, Message.model_call)
    return calls.where(Message.cost.is_(None)).scalar_subquery()


def known_cost() -> ColumnElement[Decimal | None]:
    """What the run that is selected has cost; NULL if no model call's cost is known."""
    run = WorkflowExecution
    known = run.model_calls == 0, run.total_cost != 0, run.model_calls > unpriced_calls()
    return case((or_(*known), run.total_cost))


class ToolCall(Base):
    __tablename__ = "tool_calls"

    id: Mapped[UUID] = _default(primary_key=True)
    execution_id: Mapped[UUID] = mapped_column(
        ForeignKey(WorkflowExecution.id, ondelete="RESTRICT")
    )
    message_id: Mapped[UUID | None] = mapped_column(ForeignKey(Message.id, ondelete="SET NULL"))
    tool_call_id: Mapped[str | None]
    tool_name: Mapped[str]
    status: Mapped[ToolCallStatus] = _default(type_=Text)
    started_at: Mapped[datetime | None]
    duration_ms: Mapped[float | None]
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]


class Event(Base):
    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    xact_id: Mapped[Xid8] = _default()
    event_type: Mapped[str]
    category: Mapped[EventCategory] = mapped_column(Text)
    user_id: Mapped[UUID | None]
    conversation_id: Mapped[UUID | None]
    execution_id: Mapped[UUID | None]
    subject_id: Mapped[UUID | None]
    correlation_id: Mapped[str | None]
    payload: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = _default()


class EventStream(Base):
    __tablename__ = "event_stream"

    id: Mapped[UUID] = _default(primary_key=True)
    pruned_before: Mapped[Xid8] = _default()


class Price(Base):
    __tablename__ = "prices"

    id: Mapped[UUID] = _default(primary_key=True)
    provider: Mapped[str]
    model: Mapped[str]
    valid_from: Mapped[datetime]
    prompt_price: Mapped[Decimal | None]
    completion_price: Mapped[Decimal | None]
    cache_read_price: Mapped[Decimal | None]
    cache_write_price: Mapped[Decimal | None]
    note: Mapped[str | None]
    created_at: Mapped[datetime] = _default()
    created_by: Mapped[str] = _default()


class Repricing(Base):
    __tablename__ = "repricings"

    id: Mapped[UUID] = _default(primary_key=True)
    reason: Mapped[str]
    selection: Mapped[dict[str, Any]] = _default()
    created_at: Mapped[datetime] = _default()
    created_by: Mapped[str] = _default()
    finished_at: Mapped[datetime | None]
    undone_at: Mapped[datetime | None]
    undone_by: Mapped[str | None]


class RepricedMessage(Base):
    __tablename__ = "repriced_messages"

    repricing_id: Mapped[UUID] = mapped_column(
        ForeignKey(Repricing.id, ondelete="RESTRICT"), primary_key=True
    )
    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    old_cost: Mapped[Decimal | None]
    old_cost_source: Mapped[str | None]
    old_price: Mapped[dict[str, Any] | None]
    cost: Mapped[Decimal]
    price: Mapped[dict[str, Any]]
    undone: Mapped[bool] = _default()


class SecurityEvent(Base):
    __tablename__ = "security_events"

    id: Mapped[UUID] = _default(primary_key=True)
    event_type: Mapped[str]
    severity: Mapped[Severity] = _default(type_=Text)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey(User.id, ondelete="RESTRICT"))
    ip_address: Mapped[IPv4Address | IPv6Address | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    correlation_id: Mapped[str | None]
    details: Mapped[dict[str, Any]] = _default()
    created_at: Mapped[datetime] = _default()


class SecurityRule(Base):
    __tablename__ = "security_rules"

    name: Mapped[str] = mapped_column(primary_key=True)
    event_type: Mapped[str]
    subject: Mapped[Subject] = mapped_column(Text)
    threshold: Mapped[int]
    period: Mapped[timedelta]
    severity: Mapped[Severity] = mapped_column(Text)
    block_for: Mapped[timedelta | None]
    enabled: Mapped[bool] = _default()


class Alert(Base):
    __tablename__ = "alerts"

    id: Mapped[UUID] = _default(primary_key=True)
    rule_name: Mapped[str] = mapped_column(ForeignKey(SecurityRule.name, ondelete="RESTRICT"))
    subject: Mapped[Subject] = mapped_column(Text)
    subject_value: Mapped[str]
    severity: Mapped[Severity] = mapped_column(Text)
    events: Mapped[int]
    correlation_id: Mapped[str | None]
    blocked_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = _default()


class AlertTurn(Base):
    __tablename__ = "alert_turns"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Password(Base):
    __tablename__ = "passwords"

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    hash: Mapped[str]
    changed_at: Mapped[datetime] = _default()


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[UUID] = _default(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    name: Mapped[str]
    prefix: Mapped[str]
    hash: Mapped[bytes] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _default()
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class BrowserSession(Base):
    __tablename__ = "browser_sessions"

    id: Mapped[UUID] = _default(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    hash: Mapped[bytes] = mapped_column(unique=True)
    ip_address: Mapped[IPv4Address | IPv6Address | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    created_at: Mapped[datetime] = _default()
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey(ApiKey.id, ondelete="CASCADE"))
