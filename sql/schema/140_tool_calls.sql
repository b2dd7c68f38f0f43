-- Tool calls: a row per call that a model asked for; its status says what became of it.

create table chatter.tool_calls (
  id uuid not null default chatter.uuid7(),
  execution_id uuid not null,
  message_id uuid,
  tool_call_id text,
  tool_name text not null,
  status text not null default 'requested',
  started_at timestamptz,
  duration_ms double precision,
  error_type text,
  error_message text,
  constraint tool_calls_pkey primary key (id),
  constraint tool_calls_execution_id_fkey
    foreign key (execution_id) references chatter.workflow_executions (id) on delete restrict,
  -- set null, not cascade: a cascade would lock the execution before the
  -- conversation, against the order of 150. The tool was called all the same.
  constraint tool_calls_message_id_fkey
    foreign key (message_id) references chatter.messages (id) on delete set null,
  constraint tool_calls_tool_name_check check (length(tool_name) between 1 and 500),
  constraint tool_calls_status_check
    check (status in ('requested', 'running', 'completed', 'failed', 'cancelled')),
  constraint tool_calls_duration_ms_check
    check (duration_ms >= 0 and duration_ms < 'infinity'),
  constraint tool_calls_started_at_check
    check (started_at >= '1970-01-01 00:00:00+00' and started_at < '9999-01-01 00:00:00+00')
);

-- The tool calls of a run, and the foreign key.
create index tool_calls_execution_id_idx on chatter.tool_calls (execution_id);
-- For the foreign key: deleting a message looks here.
create index tool_calls_message_id_idx on chatter.tool_calls (message_id);

comment on table chatter.tool_calls is 'Tool calls that a model asked for; executed or not is their status.';
comment on column chatter.tool_calls.id is 'UUID; derived from message and tool_call_id where the recorder wrote the row.';
comment on column chatter.tool_calls.execution_id is 'The run in which the tool was asked for.';
comment on column chatter.tool_calls.message_id is 'The model''s reply that asked; NULL when that row was deleted.';
comment on column chatter.tool_calls.tool_call_id is 'The provider''s id of the call.';
comment on column chatter.tool_calls.tool_name is 'Which tool.';
comment on column chatter.tool_calls.status is
  'requested (and never seen to run), running, completed, failed or cancelled.';
comment on column chatter.tool_calls.started_at is 'When the tool began; NULL until it did.';
comment on column chatter.tool_calls.duration_ms is 'How long the tool took, in milliseconds.';
comment on column chatter.tool_calls.error_type is 'Class of the tool''s error.';
comment on column chatter.tool_calls.error_message is 'Text of the tool''s error.';
comment on index chatter.tool_calls_execution_id_idx is 'The tool calls of a run.';
comment on index chatter.tool_calls_message_id_idx is 'The tool calls of a reply.';
