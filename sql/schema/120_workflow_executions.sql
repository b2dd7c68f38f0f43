-- Workflow executions: one row per run of a graph, visible while it runs.

create table chatter.workflow_executions (
  id uuid not null default chatter.uuid7(),
  conversation_id uuid,
  user_id uuid,
  workflow_name text not null,
  status text not null default 'running',
  correlation_id text,
  started_at timestamptz not null default chatter.clock(),
  finished_at timestamptz,
  error_type text,
  error_message text,
  metadata jsonb not null default '{}',
  model_calls bigint not null default 0,
  tool_calls bigint not null default 0,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  total_tokens bigint not null default 0,
  total_cost numeric not null default 0,
  recorder_id uuid,
  constraint workflow_executions_pkey primary key (id),
  constraint workflow_executions_conversation_id_fkey
    foreign key (conversation_id) references chatter.conversations (id) on delete restrict,
  constraint workflow_executions_user_id_fkey
    foreign key (user_id) references chatter.users (id) on delete restrict,
  constraint workflow_executions_workflow_name_check
    check (length(workflow_name) between 1 and 500),
  constraint workflow_executions_status_check
    check (status in ('running', 'completed', 'failed', 'cancelled', 'abandoned')),
  constraint workflow_executions_finished_at_check
    check ((status = 'running') = (finished_at is null)),
  constraint workflow_executions_correlation_id_check
    check (length(correlation_id) between 1 and 500),
  constraint workflow_executions_metadata_check
    check (jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $.**{100}')),
  constraint workflow_executions_started_at_finished_at_check
    check (
      started_at >= '1970-01-01 00:00:00+00' and started_at < '9999-01-01 00:00:00+00'
      and finished_at >= '1970-01-01 00:00:00+00' and finished_at < '9999-01-01 00:00:00+00'
    )
)
-- Room for the next version of a row beside it: every call updates its totals.
with (fillfactor = 70);

-- The runs of a conversation in order; also serves the foreign key.
create index workflow_executions_conversation_id_started_at_idx
  on chatter.workflow_executions (conversation_id, started_at);
-- A user's runs, newest first; without it the foreign key reads every run.
create index workflow_executions_user_id_started_at_idx
  on chatter.workflow_executions (user_id, started_at desc);
-- The newest runs, for monitoring.
create index workflow_executions_started_at_idx on chatter.workflow_executions (started_at);
-- The story of a request.
create index workflow_executions_correlation_id_idx
  on chatter.workflow_executions (correlation_id)
  where correlation_id is not null;
-- What runs now: few rows of many.
create index workflow_executions_running_idx
  on chatter.workflow_executions (started_at)
  where status = 'running';
-- What came to nothing: few again.
create index workflow_executions_failed_idx
  on chatter.workflow_executions (started_at)
  where status in ('failed', 'cancelled', 'abandoned');

-- Who ends a run without saying when, ended it now.
create function chatter.tg_workflow_executions__finish() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  new.finished_at := chatter.clock();
  return new;
end
$$;

create trigger _100_finish
  -- Named columns: updates of totals, one per model call, pass without a look.
  before insert or update of status, finished_at on chatter.workflow_executions
  for each row
  when (new.status <> 'running' and new.finished_at is null)
  execute function chatter.tg_workflow_executions__finish();

comment on table chatter.workflow_executions is
  'Runs of workflows with the totals of their model and tool calls. Totals are kept by triggers and can''t be written.';
comment on column chatter.workflow_executions.id is 'UUIDv7; the run id of the graph where the recorder wrote the row.';
comment on column chatter.workflow_executions.conversation_id is 'The conversation the run served; NULL if none.';
comment on column chatter.workflow_executions.user_id is 'Who started the run; NULL when the app did not say.';
comment on column chatter.workflow_executions.workflow_name is 'Which workflow ran, in the host app''s words.';
comment on column chatter.workflow_executions.status is
  'running, then completed, failed, cancelled, or abandoned when its process died.';
comment on column chatter.workflow_executions.correlation_id is 'One id through request, run, calls and events.';
comment on column chatter.workflow_executions.started_at is 'When the run began.';
comment on column chatter.workflow_executions.finished_at is 'When the run ended; NULL exactly while it runs.';
comment on column chatter.workflow_executions.error_type is 'Class of the error that ended the run.';
comment on column chatter.workflow_executions.error_message is 'Text of the error that ended the run.';
comment on column chatter.workflow_executions.metadata is 'Free JSON object of the host app.';
comment on column chatter.workflow_executions.recorder_id is
  'The chatter.recorders row of the process that records it, by which one that died is told; NULL if none does. No reference: a run is booked before its recorder is known where a spool was adopted.';
comment on column chatter.workflow_executions.model_calls is 'Kept by trigger: message rows of the run that are model calls.';
comment on column chatter.workflow_executions.tool_calls is 'Kept by trigger: tool calls the model asked for in the run.';
comment on column chatter.workflow_executions.prompt_tokens is 'Kept by trigger: sum over the run''s message rows, in tokens.';
comment on column chatter.workflow_executions.completion_tokens is 'Kept by trigger: sum over the run''s message rows, in tokens.';
comment on column chatter.workflow_executions.total_tokens is 'Kept by trigger: sum over the run''s message rows, in tokens.';
comment on column chatter.workflow_executions.total_cost is
  'Kept by trigger: sum of the known costs of the run''s message rows, in US dollars, exact.';
comment on index chatter.workflow_executions_conversation_id_started_at_idx is 'The runs of a conversation in order.';
comment on index chatter.workflow_executions_user_id_started_at_idx is 'A user''s runs, newest first.';
comment on index chatter.workflow_executions_started_at_idx is 'The newest runs.';
comment on index chatter.workflow_executions_correlation_id_idx is 'The story of a request.';
comment on index chatter.workflow_executions_running_idx is 'What runs now.';
comment on index chatter.workflow_executions_failed_idx is 'What came to nothing, by time.';
comment on function chatter.tg_workflow_executions__finish() is
  'Fills finished_at of a run that ended without saying when.';
comment on trigger _100_finish on chatter.workflow_executions is
  'Fills finished_at of a run that ended without saying when.';
