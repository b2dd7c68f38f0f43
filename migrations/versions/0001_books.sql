-- The schema `chatter`: the books of an LLM chat product.
--
--   000 schema      this file: the schema, its clock, its ids
--   100 users       who
--   110 conversations   what belongs together; carries totals
--   120 executions  one run of a workflow; carries totals
--   130 messages    the ledger: one row per turn and per model call
--   140 tool_calls  what the model asked to have done
--   150 totals      the triggers that keep the totals
--   160 guards      what is refused, because the books would drift
--   170 care        recount, erase, lock
--   900 roles       who may do what
--
-- Conventions: lower case, every name qualified, constraints
-- `<table>_<columns>_<check|key|fkey>`, indexes `<table>_<columns>_idx`, trigger
-- functions `tg_<table>__<task>`, triggers `_NNN_task` where the number is the
-- firing order. A function pins `search_path = ''`, except where Postgres
-- should inline it into every row (a SET clause forbids that); those name
-- everything in full instead.

-- Not `if not exists`, which asks for the right to create a schema even where
-- an administrator has made this one for us.
do $do$
begin
  if pg_catalog.to_regnamespace('chatter') is null then
    create schema chatter;
  end if;
end
$do$;

comment on schema chatter is
  'The books of an LLM chat product. Applications write raw columns of messages; triggers keep every total.';

-- One clock for all defaults, so that tests can stop it. clock_timestamp(), not
-- now(): rows of one statement keep the order in which they were written.
create function chatter.clock() returns timestamptz
language sql volatile parallel safe
as $$
  select coalesce(
    nullif(pg_catalog.current_setting('chatter.frozen_clock', true), '')::timestamptz,
    pg_catalog.clock_timestamp()
  )
$$;

comment on function chatter.clock() is
  'The time used by every default of the schema; set chatter.frozen_clock to a timestamp to stop it in a test.';

-- UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random. Neighbours in
-- time are neighbours in the index. Postgres has it built in from 18 on.
do $do$
begin
  if pg_catalog.current_setting('server_version_num')::integer >= 180000 then
    create function chatter.uuid7() returns uuid
    language sql volatile parallel safe
    as 'select pg_catalog.uuidv7()';
  else
    create function chatter.uuid7() returns uuid
    language sql volatile parallel safe
    as $$
      select pg_catalog.encode(
        pg_catalog.set_bit(
          pg_catalog.set_bit(
            pg_catalog.overlay(
              pg_catalog.uuid_send(pg_catalog.gen_random_uuid()),
              pg_catalog.substring(
                pg_catalog.int8send(
                  pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp()) * 1000)::bigint
                ),
                3
              ),
              1, 6
            ),
            52, 1
          ),
          53, 1
        ),
        'hex'
      )::uuid
    $$;
  end if;
end
$do$;

comment on function chatter.uuid7() is
  'A new UUIDv7 (RFC 9562): sorts by the millisecond it was made in.';
-- Users: the people a conversation is billed to, under the host app's own names.

create table chatter.users (
  id uuid not null default chatter.uuid7(),
  external_id text not null,
  role text not null default 'user',
  metadata jsonb not null default '{}',
  created_at timestamptz not null default chatter.clock(),
  constraint users_pkey primary key (id),
  constraint users_external_id_key unique (external_id),
  constraint users_external_id_check check (length(external_id) between 1 and 500),
  constraint users_role_check check (role in ('user', 'admin')),
  constraint users_metadata_check check (jsonb_typeof(metadata) = 'object')
);

comment on table chatter.users is 'People whose conversations are in the books.';
comment on column chatter.users.id is 'UUIDv7.';
comment on column chatter.users.external_id is 'The host app''s own name for the user: any string, unique.';
comment on column chatter.users.role is 'user or admin.';
comment on column chatter.users.metadata is 'Free JSON object of the host app.';
comment on column chatter.users.created_at is 'When the user first appeared here.';
-- Conversations: what belongs together, with the totals of its messages.
-- The totals are kept by the triggers of 150; nobody else may write them (160).

create table chatter.conversations (
  id uuid not null default chatter.uuid7(),
  external_id text,
  user_id uuid,
  title text,
  status text not null default 'active',
  metadata jsonb not null default '{}',
  created_at timestamptz not null default chatter.clock(),
  message_count bigint not null default 0,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  total_tokens bigint not null default 0,
  total_cost numeric not null default 0,
  unpriced_calls bigint not null default 0,
  last_message_at timestamptz,
  constraint conversations_pkey primary key (id),
  constraint conversations_user_id_fkey
    foreign key (user_id) references chatter.users (id) on delete restrict,
  constraint conversations_external_id_check check (length(external_id) between 1 and 500),
  constraint conversations_title_check check (length(title) <= 2000),
  constraint conversations_status_check check (status in ('active', 'archived', 'deleted')),
  constraint conversations_metadata_check check (jsonb_typeof(metadata) = 'object')
)
-- Room for the next version of a row beside it: every message updates its totals.
with (fillfactor = 70);

-- The recorder finds a conversation by its user and the host app's own id. Two
-- users may use the same id; a conversation without a user has its id alone
-- (nulls not distinct).
create unique index conversations_user_id_external_id_key
  on chatter.conversations (user_id, external_id) nulls not distinct
  where external_id is not null;

-- The conversations of a user, and the foreign key. No total and no
-- last_message_at in any index: then their updates stay within the page (HOT) and
-- touch no index at all.
create index conversations_user_id_idx on chatter.conversations (user_id);

comment on table chatter.conversations is
  'Conversations with the totals of their messages. Totals are kept by triggers and can''t be written.';
comment on column chatter.conversations.id is 'UUIDv7.';
comment on column chatter.conversations.external_id is
  'The host app''s own id, such as LangGraph''s thread_id; unique per user.';
comment on column chatter.conversations.user_id is 'Whose conversation; NULL when the app did not say.';
comment on column chatter.conversations.title is 'For people to read; erased with the conversation.';
comment on column chatter.conversations.status is
  'active, archived or deleted. A deleted conversation keeps its figures and has lost its texts.';
comment on column chatter.conversations.metadata is 'Free JSON object of the host app.';
comment on column chatter.conversations.created_at is 'When the conversation began.';
comment on column chatter.conversations.message_count is
  'Kept by trigger: rows of kind turn, what people wrote or were shown.';
comment on column chatter.conversations.prompt_tokens is 'Kept by trigger: sum over all message rows, in tokens.';
comment on column chatter.conversations.completion_tokens is 'Kept by trigger: sum over all message rows, in tokens.';
comment on column chatter.conversations.total_tokens is 'Kept by trigger: sum over all message rows, in tokens.';
comment on column chatter.conversations.total_cost is
  'Kept by trigger: sum of the known costs of all message rows, in US dollars, exact.';
comment on column chatter.conversations.unpriced_calls is
  'Kept by trigger: model calls whose cost is not known and so not in total_cost.';
comment on column chatter.conversations.last_message_at is 'Kept by trigger: created_at of the newest message row.';
comment on index chatter.conversations_user_id_external_id_key is
  'One conversation per user and id of the host app.';
comment on index chatter.conversations_user_id_idx is 'The conversations of a user.';
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
  constraint workflow_executions_metadata_check check (jsonb_typeof(metadata) = 'object')
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
-- What runs now: few rows of many.
create index workflow_executions_running_idx
  on chatter.workflow_executions (started_at)
  where status = 'running';

-- Who ends a run without saying when, ended it now.
create function chatter.tg_workflow_executions__finish() returns trigger
language plpgsql volatile
set search_path = ''
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
comment on index chatter.workflow_executions_running_idx is 'What runs now.';
comment on function chatter.tg_workflow_executions__finish() is
  'Fills finished_at of a run that ended without saying when.';
comment on trigger _100_finish on chatter.workflow_executions is
  'Fills finished_at of a run that ended without saying when.';
-- Messages: the ledger. One row per turn (what a person wrote or was shown) and
-- per step (everything else a run paid for or exchanged). One model call is
-- one row. Applications write these columns and nothing else; all totals follow.
--
-- conversation_id and execution_id are references without `references`: the
-- totals trigger (150) updates both parents anyway and so knows, once per
-- statement, whether they exist; 160 refuses to delete a parent that has rows.
-- Postgres's own check runs once per row and cost as much as all the rest
-- together (1,000 rows: 9.4 ms without, 13.5 ms with it).

create table chatter.messages (
  id uuid not null default chatter.uuid7(),
  conversation_id uuid not null,
  execution_id uuid,
  role text not null,
  kind text not null default 'turn',
  content text,
  tool_calls jsonb,
  tool_call_id text,
  provider_used text,
  model_used text,
  prompt_tokens bigint,
  completion_tokens bigint,
  total_tokens bigint,
  cache_read_tokens bigint,
  cache_write_tokens bigint,
  reasoning_tokens bigint,
  cost numeric,
  cost_source text,
  usage_status text,
  usage jsonb,
  response_time_ms double precision,
  time_to_first_token_ms double precision,
  finish_reason text,
  status text not null default 'completed',
  error_type text,
  error_message text,
  correlation_id text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default chatter.clock(),
  -- What counts as a model call is said once, here: whoever spoke as the
  -- assistant, and whatever names a model.
  model_call boolean not null
    generated always as (role = 'assistant' or model_used is not null) stored,
  constraint messages_pkey primary key (id),
  constraint messages_role_check check (role in ('system', 'user', 'assistant', 'tool')),
  constraint messages_kind_check check (kind in ('turn', 'step')),
  constraint messages_status_check check (status in ('completed', 'failed', 'cancelled')),
  constraint messages_usage_status_check
    check (usage_status in ('reported', 'estimated', 'unknown')),
  constraint messages_cost_source_check
    check (cost_source in ('provider', 'computed', 'imported')),
  -- A thousand million tokens is far above any context window: a count beyond
  -- it is a unit mistaken or a bug, and would hide in a sum.
  constraint messages_prompt_tokens_check check (prompt_tokens between 0 and 1000000000),
  constraint messages_completion_tokens_check check (completion_tokens between 0 and 1000000000),
  constraint messages_total_tokens_check check (total_tokens between 0 and 2000000000),
  constraint messages_cache_read_tokens_check check (cache_read_tokens between 0 and 1000000000),
  constraint messages_cache_write_tokens_check check (cache_write_tokens between 0 and 1000000000),
  constraint messages_reasoning_tokens_check check (reasoning_tokens between 0 and 1000000000),
  -- NaN sorts above every number, so the upper bound refuses it too.
  constraint messages_cost_check check (cost >= 0 and cost < 1000000),
  constraint messages_response_time_ms_check
    check (response_time_ms >= 0 and response_time_ms < 'infinity'),
  constraint messages_time_to_first_token_ms_check
    check (time_to_first_token_ms >= 0 and time_to_first_token_ms < 'infinity'),
  -- 8 MiB: several times the longest prompt a model takes.
  constraint messages_content_check check (octet_length(content) <= 8388608),
  constraint messages_metadata_check check (jsonb_typeof(metadata) = 'object')
);

-- A conversation's history in order, its newest row, and whether it has any.
create index messages_conversation_id_created_at_idx
  on chatter.messages (conversation_id, created_at);
-- The calls of a run, and whether it has any.
create index messages_execution_id_idx
  on chatter.messages (execution_id)
  where execution_id is not null;

-- Rows that leave the derived columns open get them filled. The WHEN clause
-- spares the call for writers that say everything, as the recorder does.
create function chatter.tg_messages__complete() returns trigger
language plpgsql volatile
set search_path = ''
as $$
begin
  if new.total_tokens is null then
    new.total_tokens := case
      when new.prompt_tokens is null then new.completion_tokens
      else new.prompt_tokens + coalesce(new.completion_tokens, 0)
    end;
  end if;
  if new.usage_status is null and (new.role = 'assistant' or new.model_used is not null) then
    -- A provider that states no more than the total has reported.
    new.usage_status := case when new.total_tokens is null then 'unknown' else 'reported' end;
  end if;
  return new;
end
$$;

create trigger _100_complete
  before insert or update on chatter.messages
  for each row
  when (new.total_tokens is null or new.usage_status is null)
  execute function chatter.tg_messages__complete();

-- A total that was the sum of its parts stays the sum when a part is corrected;
-- a total the provider stated stays as stated.
create function chatter.tg_messages__retotal() returns trigger
language plpgsql volatile
set search_path = ''
as $$
begin
  if old.total_tokens = coalesce(old.prompt_tokens, 0) + coalesce(old.completion_tokens, 0) then
    new.total_tokens := case
      when new.prompt_tokens is null then new.completion_tokens
      else new.prompt_tokens + coalesce(new.completion_tokens, 0)
    end;
  end if;
  return new;
end
$$;

create trigger _110_retotal
  before update on chatter.messages
  for each row
  when (
    new.total_tokens is not distinct from old.total_tokens
    and (
      new.prompt_tokens is distinct from old.prompt_tokens
      or new.completion_tokens is distinct from old.completion_tokens
    )
  )
  execute function chatter.tg_messages__retotal();

comment on table chatter.messages is
  'The ledger: one row per turn and per model call, with its raw tokens and cost. All totals follow from these rows.';
comment on column chatter.messages.id is 'UUIDv7; the run id of the model call where the recorder wrote the row.';
comment on column chatter.messages.conversation_id is 'The conversation the row belongs to; must exist (checked per statement by the totals trigger).';
comment on column chatter.messages.execution_id is 'The run that made the row, NULL if none did; must exist (checked per statement by the totals trigger).';
comment on column chatter.messages.role is 'system, user, assistant or tool.';
comment on column chatter.messages.kind is
  'turn: what a person wrote or was shown. step: everything else that was paid for or exchanged.';
comment on column chatter.messages.content is 'The text, up to 8 MiB; NULL when erased or not kept.';
comment on column chatter.messages.tool_calls is 'The tool calls the model asked for, as the model gave them.';
comment on column chatter.messages.tool_call_id is 'For role tool: which tool call this answers.';
comment on column chatter.messages.provider_used is 'Who was paid, such as openai.';
comment on column chatter.messages.model_used is 'The model that answered, in the provider''s words.';
comment on column chatter.messages.prompt_tokens is 'Tokens in, cached ones included; NULL when not reported.';
comment on column chatter.messages.completion_tokens is 'Tokens out, reasoning included; NULL when not reported.';
comment on column chatter.messages.total_tokens is
  'What the provider stated, else the sum of what it reported; the two differ at some providers.';
comment on column chatter.messages.cache_read_tokens is 'Part of prompt_tokens read from the provider''s cache; NULL when not reported.';
comment on column chatter.messages.cache_write_tokens is 'Part of prompt_tokens written to the provider''s cache; NULL when not reported.';
comment on column chatter.messages.reasoning_tokens is 'Part of completion_tokens spent on reasoning; NULL when not reported.';
comment on column chatter.messages.cost is 'US dollars, exact; NULL when the price is not known.';
comment on column chatter.messages.cost_source is
  'Where cost is from: provider (stated in the answer), computed (price list), imported.';
comment on column chatter.messages.usage_status is
  'reported, estimated, or unknown when the provider did not say; NULL for rows that are no model call.';
comment on column chatter.messages.usage is 'The usage block as received.';
comment on column chatter.messages.response_time_ms is 'From request to end of the answer, in milliseconds.';
comment on column chatter.messages.time_to_first_token_ms is 'From request to the first streamed token, in milliseconds.';
comment on column chatter.messages.finish_reason is 'Why the model stopped, in the provider''s words.';
comment on column chatter.messages.status is 'completed, failed or cancelled.';
comment on column chatter.messages.error_type is 'Class of the error of a failed call.';
comment on column chatter.messages.error_message is 'Text of the error of a failed call; never an answer''s content.';
comment on column chatter.messages.correlation_id is 'One id through request, run, calls and events.';
comment on column chatter.messages.metadata is 'Free JSON object.';
comment on column chatter.messages.created_at is 'When the row''s tokens were spent: the end of the call.';
comment on column chatter.messages.model_call is 'Derived: whether the row is a model call.';
comment on index chatter.messages_conversation_id_created_at_idx is 'A conversation''s history in order.';
comment on index chatter.messages_execution_id_idx is 'The rows of a run.';
comment on function chatter.tg_messages__complete() is 'Fills total_tokens and usage_status where a writer left them open.';
comment on function chatter.tg_messages__retotal() is 'Keeps total_tokens the sum of its parts where it was their sum before.';
comment on trigger _100_complete on chatter.messages is 'Fills total_tokens and usage_status where a writer left them open.';
comment on trigger _110_retotal on chatter.messages is 'Keeps total_tokens the sum of its parts where it was their sum before.';
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
    check (duration_ms >= 0 and duration_ms < 'infinity')
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
-- Totals: conversations and executions always equal the sum over their rows.
--
-- Three rules make that hold under concurrency:
--
-- 1. Deltas, never recounts. At READ COMMITTED a trigger that stores sum(...)
--    overwrites what a neighbour committed meanwhile; `total + delta` waits for
--    the row and adds to what it finds.
-- 2. One lock order: conversations before executions, each in id order, `for no
--    key update` (which lets the foreign-key checks of other inserters pass).
--    A statement that only inserts therefore can't deadlock on totals, however
--    many conversations it touches. These take their conversations first, with
--    chatter.lock_conversations(): a transaction of several statements; a
--    statement of several operations over several conversations (ON CONFLICT DO
--    UPDATE, MERGE), because Postgres runs their triggers one after the other;
--    and a change or deletion of messages that others may be changing too,
--    because Postgres locks a message before a trigger can lock its conversation.
--    Who doesn't may get 40P01 and loses nothing by trying again.
-- 3. Per statement, not per row: one update of a conversation for a thousand
--    new messages.
--
-- The parents are references checked here: an update that finds fewer parents
-- than the new rows name is a foreign-key violation. It can't race with a deletion of
-- the parent, because both need the parent's row lock. Rows that leave need no
-- parent, or a message that lost its own could not be deleted.
--
-- Functions are `security definer`, since the app's role must not be able to
-- write a total itself.

create type chatter.message_delta as (
  conversation_id uuid,
  execution_id uuid,
  turns bigint,
  model_calls bigint,
  prompt_tokens bigint,
  completion_tokens bigint,
  total_tokens bigint,
  cost numeric,
  unpriced_calls bigint,
  newest_before timestamptz,
  newest_after timestamptz
);

comment on type chatter.message_delta is
  'What one statement changed for one pair of conversation and execution.';
comment on column chatter.message_delta.conversation_id is 'Whose totals change.';
comment on column chatter.message_delta.execution_id is 'Whose totals change too; NULL if none.';
comment on column chatter.message_delta.turns is 'Signed number of rows of kind turn.';
comment on column chatter.message_delta.model_calls is 'Signed number of model calls.';
comment on column chatter.message_delta.prompt_tokens is 'Signed tokens.';
comment on column chatter.message_delta.completion_tokens is 'Signed tokens.';
comment on column chatter.message_delta.total_tokens is 'Signed tokens.';
comment on column chatter.message_delta.cost is 'Signed US dollars.';
comment on column chatter.message_delta.unpriced_calls is 'Signed number of model calls without a cost.';
comment on column chatter.message_delta.newest_before is 'Newest created_at among the old rows; NULL for an insert.';
comment on column chatter.message_delta.newest_after is 'Newest created_at among the new rows; NULL for a delete.';

-- In the words and with the code of Postgres's own foreign keys, so that drivers
-- and people know it.
create function chatter.refuse_missing_parent(p_column text, p_parent text, p_key text) returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  raise exception 'insert or update on table "messages" violates foreign key constraint "messages_%_fkey"',
    p_column
    using
      errcode = 'foreign_key_violation',
      detail = pg_catalog.format('Key (%s)=(%s) is not present in table "%s".', p_column, p_key, p_parent),
      schema = 'chatter',
      table = 'messages',
      column = p_column,
      constraint = pg_catalog.format('messages_%s_fkey', p_column);
end
$$;

comment on function chatter.refuse_missing_parent(text, text, text) is
  'Raises the foreign-key violation of a message whose conversation or execution does not exist.';

-- Adds the deltas to conversations and executions. Any trigger can call it, one
-- per statement or one per row.
--
-- An analyze beside a bulk write sees none of its uncommitted conversations and
-- tells the planner that the table is empty, which then loops over all of them for
-- every delta: 200,000 imported rows took 200 s instead of 4. So no nested loops
-- here; the arrays let a large table be reached by its index without one.
create function chatter.apply_message_deltas(p_deltas chatter.message_delta[]) returns void
language plpgsql volatile security definer
set search_path = ''
set enable_nestloop = off
as $$
declare
  v_delta chatter.message_delta := p_deltas[1];
  v_found bigint;
  v_missing text;
begin
  -- The common case, new rows of one conversation and one execution: the same two
  -- updates by key. It spares a single insert two thirds of the time of the sets
  -- below (0.29 ms to 0.09 ms), and its updates take the locks themselves.
  if cardinality(p_deltas) = 1 and v_delta.newest_before is null then
    update chatter.conversations as c
    set message_count = c.message_count + v_delta.turns,
        prompt_tokens = c.prompt_tokens + v_delta.prompt_tokens,
        completion_tokens = c.completion_tokens + v_delta.completion_tokens,
        total_tokens = c.total_tokens + v_delta.total_tokens,
        total_cost = c.total_cost + v_delta.cost,
        unpriced_calls = c.unpriced_calls + v_delta.unpriced_calls,
        last_message_at = greatest(c.last_message_at, v_delta.newest_after)
    where c.id = v_delta.conversation_id;
    if not found then
      perform chatter.refuse_missing_parent(
        'conversation_id', 'conversations', v_delta.conversation_id::text
      );
    end if;

    if v_delta.execution_id is not null then
      update chatter.workflow_executions as e
      set model_calls = e.model_calls + v_delta.model_calls,
          prompt_tokens = e.prompt_tokens + v_delta.prompt_tokens,
          completion_tokens = e.completion_tokens + v_delta.completion_tokens,
          total_tokens = e.total_tokens + v_delta.total_tokens,
          total_cost = e.total_cost + v_delta.cost
      where e.id = v_delta.execution_id;
      if not found then
        perform chatter.refuse_missing_parent(
          'execution_id', 'workflow_executions', v_delta.execution_id::text
        );
      end if;
    end if;
    return;
  end if;

  -- New rows of one conversation need no lock ahead: the update takes it.
  -- Elsewhere the lock comes first, in a statement of its own, so that the next
  -- one sees everything committed until we got it.
  if (select count(distinct d.conversation_id) > 1 or bool_or(d.newest_before is not null)
      from unnest(p_deltas) as d)
  then
    perform from chatter.conversations as c
      where c.id = any(array(select d.conversation_id from unnest(p_deltas) as d))
      order by c.id
      for no key update;
  end if;

  update chatter.conversations as c
  set message_count = c.message_count + d.turns,
      prompt_tokens = c.prompt_tokens + d.prompt_tokens,
      completion_tokens = c.completion_tokens + d.completion_tokens,
      total_tokens = c.total_tokens + d.total_tokens,
      total_cost = c.total_cost + d.cost,
      unpriced_calls = c.unpriced_calls + d.unpriced_calls,
      last_message_at = case
        when d.newest_after >= coalesce(d.newest_before, d.newest_after)
          then greatest(c.last_message_at, d.newest_after)
        when d.newest_before < c.last_message_at
          then c.last_message_at
        -- The newest row went away or back in time: look at what is left.
        else (
          select max(m.created_at)
          from chatter.messages as m
          where m.conversation_id = c.id
        )
      end
  from (
    select
      u.conversation_id,
      sum(u.turns) as turns,
      sum(u.prompt_tokens) as prompt_tokens,
      sum(u.completion_tokens) as completion_tokens,
      sum(u.total_tokens) as total_tokens,
      sum(u.cost) as cost,
      sum(u.unpriced_calls) as unpriced_calls,
      max(u.newest_before) as newest_before,
      max(u.newest_after) as newest_after
    from unnest(p_deltas) as u
    group by u.conversation_id
  ) as d
  where c.id = d.conversation_id
    and c.id = any(array(select k.conversation_id from unnest(p_deltas) as k));

  get diagnostics v_found = row_count;
  if v_found < (select count(distinct d.conversation_id) from unnest(p_deltas) as d) then
    select min(d.conversation_id::text) into v_missing
    from unnest(p_deltas) as d
    where d.newest_after is not null
      and not exists (select from chatter.conversations as c where c.id = d.conversation_id);
    if v_missing is not null then
      perform chatter.refuse_missing_parent('conversation_id', 'conversations', v_missing);
    end if;
  end if;

  if not exists (select from unnest(p_deltas) as d where d.execution_id is not null) then
    return;
  end if;

  perform from chatter.workflow_executions as e
    where e.id = any(array(select d.execution_id from unnest(p_deltas) as d))
    order by e.id
    for no key update;

  update chatter.workflow_executions as e
  set model_calls = e.model_calls + d.model_calls,
      prompt_tokens = e.prompt_tokens + d.prompt_tokens,
      completion_tokens = e.completion_tokens + d.completion_tokens,
      total_tokens = e.total_tokens + d.total_tokens,
      total_cost = e.total_cost + d.cost
  from (
    select
      u.execution_id,
      sum(u.model_calls) as model_calls,
      sum(u.prompt_tokens) as prompt_tokens,
      sum(u.completion_tokens) as completion_tokens,
      sum(u.total_tokens) as total_tokens,
      sum(u.cost) as cost
    from unnest(p_deltas) as u
    where u.execution_id is not null
    group by u.execution_id
  ) as d
  where e.id = d.execution_id
    and e.id = any(array(select k.execution_id from unnest(p_deltas) as k));

  get diagnostics v_found = row_count;
  if v_found < (select count(distinct d.execution_id) from unnest(p_deltas) as d) then
    select min(d.execution_id::text) into v_missing
    from unnest(p_deltas) as d
    where d.newest_after is not null
      and d.execution_id is not null
      and not exists (select from chatter.workflow_executions as e where e.id = d.execution_id);
    if v_missing is not null then
      perform chatter.refuse_missing_parent('execution_id', 'workflow_executions', v_missing);
    end if;
  end if;
end
$$;

comment on function chatter.apply_message_deltas(chatter.message_delta[]) is
  'Adds deltas to the totals of conversations, then executions, each locked in id order.';

create function chatter.tg_messages__totals() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_deltas chatter.message_delta[];
begin
  -- A branch per operation, because each has other transition tables. Changes
  -- that leave every figure as it was (a new text, say) yield no delta and
  -- touch no total.
  if tg_op = 'INSERT' then
    select array_agg(d::chatter.message_delta) into v_deltas
    from (
      select
        r.conversation_id,
        r.execution_id,
        count(*) filter (where r.kind = 'turn'),
        count(*) filter (where r.model_call),
        coalesce(sum(r.prompt_tokens), 0)::bigint,
        coalesce(sum(r.completion_tokens), 0)::bigint,
        coalesce(sum(r.total_tokens), 0)::bigint,
        coalesce(sum(r.cost), 0),
        count(*) filter (where r.model_call and r.cost is null),
        null::timestamptz,
        max(r.created_at)
      from new_rows as r
      group by r.conversation_id, r.execution_id
    ) as d;
  elsif tg_op = 'DELETE' then
    select array_agg(d::chatter.message_delta) into v_deltas
    from (
      select
        r.conversation_id,
        r.execution_id,
        -count(*) filter (where r.kind = 'turn'),
        -count(*) filter (where r.model_call),
        -coalesce(sum(r.prompt_tokens), 0)::bigint,
        -coalesce(sum(r.completion_tokens), 0)::bigint,
        -coalesce(sum(r.total_tokens), 0)::bigint,
        -coalesce(sum(r.cost), 0),
        -count(*) filter (where r.model_call and r.cost is null),
        max(r.created_at),
        null::timestamptz
      from old_rows as r
      group by r.conversation_id, r.execution_id
    ) as d;
  else
    -- Old rows count -1, new rows +1; a row that moved counts at both ends.
    select array_agg(d::chatter.message_delta) into v_deltas
    from (
      select
        r.conversation_id,
        r.execution_id,
        coalesce(sum(r.sign) filter (where r.kind = 'turn'), 0),
        coalesce(sum(r.sign) filter (where r.model_call), 0),
        coalesce(sum(r.sign * r.prompt_tokens), 0)::bigint,
        coalesce(sum(r.sign * r.completion_tokens), 0)::bigint,
        coalesce(sum(r.sign * r.total_tokens), 0)::bigint,
        coalesce(sum(r.sign * r.cost), 0),
        coalesce(sum(r.sign) filter (where r.model_call and r.cost is null), 0),
        max(r.created_at) filter (where r.sign = -1),
        max(r.created_at) filter (where r.sign = 1)
      from (
        select
          -1 as sign, o.conversation_id, o.execution_id, o.kind, o.model_call, o.prompt_tokens,
          o.completion_tokens, o.total_tokens, o.cost, o.created_at
        from old_rows as o
        union all
        select
          1, n.conversation_id, n.execution_id, n.kind, n.model_call, n.prompt_tokens,
          n.completion_tokens, n.total_tokens, n.cost, n.created_at
        from new_rows as n
      ) as r
      group by r.conversation_id, r.execution_id
      having
        coalesce(sum(r.sign) filter (where r.kind = 'turn'), 0) <> 0
        or coalesce(sum(r.sign) filter (where r.model_call), 0) <> 0
        or coalesce(sum(r.sign * r.prompt_tokens), 0) <> 0
        or coalesce(sum(r.sign * r.completion_tokens), 0) <> 0
        or coalesce(sum(r.sign * r.total_tokens), 0) <> 0
        or coalesce(sum(r.sign * r.cost), 0) <> 0
        or coalesce(sum(r.sign) filter (where r.model_call and r.cost is null), 0) <> 0
        or max(r.created_at) filter (where r.sign = -1)
          is distinct from max(r.created_at) filter (where r.sign = 1)
    ) as d;
  end if;

  if v_deltas is not null then
    perform chatter.apply_message_deltas(v_deltas);
  end if;
  return null;
end
$$;

comment on function chatter.tg_messages__totals() is
  'Turns what a statement changed in messages into deltas of the totals.';

create trigger _200_totals_insert
  after insert on chatter.messages
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_messages__totals();

create trigger _200_totals_update
  after update on chatter.messages
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function chatter.tg_messages__totals();

create trigger _200_totals_delete
  after delete on chatter.messages
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_messages__totals();

comment on trigger _200_totals_insert on chatter.messages is 'Keeps the totals of conversations and executions.';
comment on trigger _200_totals_update on chatter.messages is 'Keeps the totals of conversations and executions.';
comment on trigger _200_totals_delete on chatter.messages is 'Keeps the totals of conversations and executions.';

create function chatter.tg_tool_calls__totals() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_executions uuid[];
  v_counts bigint[];
begin
  if tg_op = 'INSERT' then
    select array_agg(d.execution_id), array_agg(d.calls) into v_executions, v_counts
    from (
      select r.execution_id, count(*) as calls from new_rows as r group by r.execution_id
    ) as d;
  elsif tg_op = 'DELETE' then
    select array_agg(d.execution_id), array_agg(d.calls) into v_executions, v_counts
    from (
      select r.execution_id, -count(*) as calls from old_rows as r group by r.execution_id
    ) as d;
  else
    select array_agg(d.execution_id), array_agg(d.calls) into v_executions, v_counts
    from (
      select r.execution_id, sum(r.sign) as calls
      from (
        select -1 as sign, o.execution_id from old_rows as o
        union all
        select 1, n.execution_id from new_rows as n
      ) as r
      group by r.execution_id
      having sum(r.sign) <> 0
    ) as d;
  end if;

  if v_executions is null then
    return null;
  end if;

  perform from chatter.workflow_executions as e
    where e.id = any(v_executions)
    order by e.id
    for no key update;

  update chatter.workflow_executions as e
  set tool_calls = e.tool_calls + d.calls
  from unnest(v_executions, v_counts) as d (execution_id, calls)
  where e.id = d.execution_id;
  return null;
end
$$;

comment on function chatter.tg_tool_calls__totals() is 'Keeps workflow_executions.tool_calls.';

create trigger _200_totals_insert
  after insert on chatter.tool_calls
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_tool_calls__totals();

create trigger _200_totals_update
  after update on chatter.tool_calls
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function chatter.tg_tool_calls__totals();

create trigger _200_totals_delete
  after delete on chatter.tool_calls
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_tool_calls__totals();

comment on trigger _200_totals_insert on chatter.tool_calls is 'Keeps the number of tool calls of executions.';
comment on trigger _200_totals_update on chatter.tool_calls is 'Keeps the number of tool calls of executions.';
comment on trigger _200_totals_delete on chatter.tool_calls is 'Keeps the number of tool calls of executions.';
-- Guards: what a trigger can't follow, or would make a total differ from its
-- rows, is refused with a word on what to do instead. The owner and superusers
-- are refused too; column grants (900) stop everybody else earlier.
--
-- The one way around is `set chatter.maintenance = 'on'`, used by the functions
-- of 170. It opens the totals, never TRUNCATE.

create function chatter.tg_refuse_totals() returns trigger
language plpgsql volatile
set search_path = ''
as $$
begin
  -- Depth 1 is a statement of a client; our own triggers update from depth 2 on.
  -- Asked here and not in the trigger's WHEN, which Postgres would parse anew for
  -- every statement: that took longer than this call.
  if tg_op = 'UPDATE' and (
    pg_catalog.pg_trigger_depth() > 1
    or pg_catalog.current_setting('chatter.maintenance', true) = 'on'
  ) then
    return null;
  end if;
  raise exception 'totals of chatter.% are kept by triggers and can''t be written', tg_table_name
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      hint = 'Change the rows of chatter.messages or chatter.tool_calls; the totals follow. '
        'If they differ from their rows, run: select * from chatter.recount();';
end
$$;

comment on function chatter.tg_refuse_totals() is 'Refuses a statement that writes a total.';

create trigger _000_refuse_totals_update
  before update of
    message_count, prompt_tokens, completion_tokens, total_tokens, total_cost, unpriced_calls,
    last_message_at
  on chatter.conversations
  for each statement
  execute function chatter.tg_refuse_totals();

create trigger _000_refuse_totals_insert
  before insert on chatter.conversations
  for each row
  when (
    (new.message_count, new.prompt_tokens, new.completion_tokens, new.total_tokens, new.unpriced_calls)
      is distinct from (0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint)
    or new.total_cost <> 0
    or new.last_message_at is not null
  )
  execute function chatter.tg_refuse_totals();

create trigger _000_refuse_totals_update
  before update of
    model_calls, tool_calls, prompt_tokens, completion_tokens, total_tokens, total_cost
  on chatter.workflow_executions
  for each statement
  execute function chatter.tg_refuse_totals();

create trigger _000_refuse_totals_insert
  before insert on chatter.workflow_executions
  for each row
  when (
    (new.model_calls, new.tool_calls, new.prompt_tokens, new.completion_tokens, new.total_tokens)
      is distinct from (0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint)
    or new.total_cost <> 0
  )
  execute function chatter.tg_refuse_totals();

-- The parents' side of the references of messages (130, 150). A message that
-- is being inserted holds or awaits the parent's lock, so the deletion either
-- sees it here or makes it fail there.
create function chatter.tg_refuse_orphans() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_parent uuid;
  v_column text := case tg_table_name
    when 'conversations' then 'conversation_id'
    else 'execution_id'
  end;
begin
  if tg_table_name = 'conversations' then
    select o.id into v_parent
    from old_rows as o
    where exists (select from chatter.messages as m where m.conversation_id = o.id)
    limit 1;
  else
    select o.id into v_parent
    from old_rows as o
    where exists (select from chatter.messages as m where m.execution_id = o.id)
    limit 1;
  end if;

  if v_parent is not null then
    raise exception 'delete on table "%" violates foreign key constraint "messages_%_fkey" on table "messages"',
      tg_table_name, v_column
      using
        errcode = 'foreign_key_violation',
        detail = pg_catalog.format('Key (id)=(%s) is still referenced from table "messages".', v_parent),
        hint = 'Spent money stays in the books: chatter.erase_conversation() erases the texts and keeps '
          'the figures. To correct the books, delete the messages first.',
        schema = 'chatter',
        table = 'messages',
        constraint = pg_catalog.format('messages_%s_fkey', v_column);
  end if;
  return null;
end
$$;

comment on function chatter.tg_refuse_orphans() is
  'Refuses to delete a conversation or an execution that still has messages.';

create trigger _100_refuse_orphans
  after delete on chatter.conversations
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_refuse_orphans();

create trigger _100_refuse_orphans
  after delete on chatter.workflow_executions
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_refuse_orphans();

create function chatter.tg_refuse_new_id() returns trigger
language plpgsql volatile
set search_path = ''
as $$
begin
  raise exception 'the id of a row of chatter.% can''t change: messages refer to it', tg_table_name
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      column = 'id',
      hint = 'Insert a new row and move the messages to it; their totals move along.';
end
$$;

comment on function chatter.tg_refuse_new_id() is 'Refuses to change an id that messages refer to.';

-- By column: a statement that doesn't name the id passes without a look.
create trigger _100_refuse_new_id
  before update of id on chatter.conversations
  for each statement
  execute function chatter.tg_refuse_new_id();

create trigger _100_refuse_new_id
  before update of id on chatter.workflow_executions
  for each statement
  execute function chatter.tg_refuse_new_id();

comment on trigger _100_refuse_orphans on chatter.conversations is 'Refuses to delete a conversation that has messages.';
comment on trigger _100_refuse_orphans on chatter.workflow_executions is 'Refuses to delete an execution that has messages.';
comment on trigger _100_refuse_new_id on chatter.conversations is 'Refuses to change an id that messages refer to.';
comment on trigger _100_refuse_new_id on chatter.workflow_executions is 'Refuses to change an id that messages refer to.';

create function chatter.tg_refuse_truncate() returns trigger
language plpgsql volatile
set search_path = ''
as $$
begin
  raise exception 'TRUNCATE of chatter.% is refused: no row trigger sees it, so totals would keep what is gone',
    tg_table_name
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      hint = 'Use DELETE, which is counted. To start afresh, drop the schema and migrate again.';
end
$$;

comment on function chatter.tg_refuse_truncate() is 'Refuses TRUNCATE, which totals could not follow.';

create trigger _000_refuse_truncate before truncate on chatter.users
  for each statement execute function chatter.tg_refuse_truncate();
create trigger _000_refuse_truncate before truncate on chatter.conversations
  for each statement execute function chatter.tg_refuse_truncate();
create trigger _000_refuse_truncate before truncate on chatter.workflow_executions
  for each statement execute function chatter.tg_refuse_truncate();
create trigger _000_refuse_truncate before truncate on chatter.messages
  for each statement execute function chatter.tg_refuse_truncate();
create trigger _000_refuse_truncate before truncate on chatter.tool_calls
  for each statement execute function chatter.tg_refuse_truncate();

comment on trigger _000_refuse_totals_update on chatter.conversations is 'Refuses a client''s write to a total.';
comment on trigger _000_refuse_totals_insert on chatter.conversations is 'Refuses a row that brings totals along.';
comment on trigger _000_refuse_totals_update on chatter.workflow_executions is 'Refuses a client''s write to a total.';
comment on trigger _000_refuse_totals_insert on chatter.workflow_executions is 'Refuses a row that brings totals along.';
comment on trigger _000_refuse_truncate on chatter.users is 'Refuses TRUNCATE.';
comment on trigger _000_refuse_truncate on chatter.conversations is 'Refuses TRUNCATE.';
comment on trigger _000_refuse_truncate on chatter.workflow_executions is 'Refuses TRUNCATE.';
comment on trigger _000_refuse_truncate on chatter.messages is 'Refuses TRUNCATE.';
comment on trigger _000_refuse_truncate on chatter.tool_calls is 'Refuses TRUNCATE.';
-- Care: what an operator or an application needs beyond plain statements.

-- Locks conversations in id order, as the totals triggers do. Transactions of
-- several statements, and those that change or delete messages which others may be
-- changing, can't deadlock with each other if each calls this first, once, for all
-- its conversations (both ends of a move) and then picks its messages by them.
create function chatter.lock_conversations(variadic p_conversation_ids uuid[]) returns void
language sql volatile
set search_path = ''
as $$
  select from chatter.conversations as c
  where c.id = any(p_conversation_ids)
  order by c.id
  for no key update
$$;

comment on function chatter.lock_conversations(uuid[]) is
  'Locks conversations in id order; call it first in a transaction of several statements, to rule out deadlocks.';

-- Erases what was said and keeps what was spent. False if there is no such
-- conversation; repeating it changes nothing.
create function chatter.erase_conversation(p_conversation_id uuid) returns boolean
language plpgsql volatile
set search_path = ''
as $$
begin
  perform chatter.lock_conversations(p_conversation_id);

  update chatter.conversations as c
  set status = 'deleted', title = null, metadata = '{}'
  where c.id = p_conversation_id;
  if not found then
    return false;
  end if;

  update chatter.messages as m
  set content = null, tool_calls = null, error_message = null, metadata = '{}'
  where m.conversation_id = p_conversation_id
    and (m.content, m.tool_calls, m.error_message, m.metadata)
      is distinct from (null::text, null::jsonb, null::text, '{}'::jsonb);

  update chatter.tool_calls as t
  set error_message = null
  from chatter.workflow_executions as e
  where e.id = t.execution_id
    and e.conversation_id = p_conversation_id
    and t.error_message is not null;

  update chatter.workflow_executions as e
  set error_message = null, metadata = '{}'
  where e.conversation_id = p_conversation_id
    and (e.error_message is not null or e.metadata <> '{}');
  return true;
end
$$;

comment on function chatter.erase_conversation(uuid) is
  'Marks a conversation deleted and erases its texts; its tokens and cost stay in the books.';

-- Mends totals that differ from their rows, which takes a session that switched
-- triggers off. Returns what it changed. Safe beside writers: a row is locked
-- first and recounted by a later statement, so it counts exactly the messages
-- whose deltas are already in; those still waiting for the lock add theirs after.
create function chatter.recount() returns table (mended_table text, mended_id uuid)
language plpgsql volatile
set search_path = ''
as $$
declare
  v_ids uuid[];
  v_before text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
begin
  -- Opens the totals (160) until the function ends or fails. Not as a SET clause
  -- of the function: only a superuser may create that.
  perform pg_catalog.set_config('chatter.maintenance', 'on', true);

  select array_agg(locked.id) into v_ids
  from (
    select c.id
    from chatter.conversations as c
    order by c.id
    for no key update
  ) as locked;

  return query
  update chatter.conversations as c
  set message_count = r.message_count,
      prompt_tokens = r.prompt_tokens,
      completion_tokens = r.completion_tokens,
      total_tokens = r.total_tokens,
      total_cost = r.total_cost,
      unpriced_calls = r.unpriced_calls,
      last_message_at = r.last_message_at
  from (
    select
      k.id,
      count(m.id) filter (where m.kind = 'turn') as message_count,
      coalesce(sum(m.prompt_tokens), 0) as prompt_tokens,
      coalesce(sum(m.completion_tokens), 0) as completion_tokens,
      coalesce(sum(m.total_tokens), 0) as total_tokens,
      coalesce(sum(m.cost), 0) as total_cost,
      count(m.id) filter (where m.model_call and m.cost is null) as unpriced_calls,
      max(m.created_at) as last_message_at
    from unnest(v_ids) as k (id)
      left join chatter.messages as m on m.conversation_id = k.id
    group by k.id
  ) as r
  where c.id = r.id
    and (
      c.message_count, c.prompt_tokens, c.completion_tokens, c.total_tokens, c.total_cost,
      c.unpriced_calls, c.last_message_at
    ) is distinct from (
      r.message_count, r.prompt_tokens, r.completion_tokens, r.total_tokens, r.total_cost,
      r.unpriced_calls, r.last_message_at
    )
  returning 'conversations', c.id;

  select array_agg(locked.id) into v_ids
  from (
    select e.id
    from chatter.workflow_executions as e
    order by e.id
    for no key update
  ) as locked;

  return query
  update chatter.workflow_executions as e
  set model_calls = r.model_calls,
      tool_calls = r.tool_calls,
      prompt_tokens = r.prompt_tokens,
      completion_tokens = r.completion_tokens,
      total_tokens = r.total_tokens,
      total_cost = r.total_cost
  from (
    select
      k.id,
      count(m.id) filter (where m.model_call) as model_calls,
      (select count(*) from chatter.tool_calls as t where t.execution_id = k.id) as tool_calls,
      coalesce(sum(m.prompt_tokens), 0) as prompt_tokens,
      coalesce(sum(m.completion_tokens), 0) as completion_tokens,
      coalesce(sum(m.total_tokens), 0) as total_tokens,
      coalesce(sum(m.cost), 0) as total_cost
    from unnest(v_ids) as k (id)
      left join chatter.messages as m on m.execution_id = k.id
    group by k.id
  ) as r
  where e.id = r.id
    and (
      e.model_calls, e.tool_calls, e.prompt_tokens, e.completion_tokens, e.total_tokens, e.total_cost
    ) is distinct from (
      r.model_calls, r.tool_calls, r.prompt_tokens, r.completion_tokens, r.total_tokens, r.total_cost
    )
  returning 'workflow_executions', e.id;

  perform pg_catalog.set_config('chatter.maintenance', v_before, true);
end
$$;

comment on function chatter.recount() is
  'Mends totals that differ from their rows and returns what it changed; for owners, after triggers were switched off. Locks all conversations while it runs.';
-- Roles. They have no login of their own: grant one to the user your app signs
-- in as (`grant chatter_app to my_app_login`).
--
-- A migrating user who may not create roles gets a warning and a schema
-- without them. When somebody with the right has created them, the owner runs
-- `select chatter.grant_roles();`, which is the one place where grants are.

do $$
declare
  v_role text;
begin
  foreach v_role in array array['chatter_app', 'chatter_reader', 'chatter_worker'] loop
    if pg_catalog.to_regrole(v_role) is null then
      begin
        execute pg_catalog.format('create role %I nologin', v_role);
      exception
        -- Roles belong to the whole server: a migration of another database
        -- may have made it this very moment.
        when duplicate_object or unique_violation then
          null;
        when insufficient_privilege then
          raise warning 'role % was not created: % may not create roles', v_role, current_user
            using hint = 'The schema works without it. To have least-privilege roles, let an '
              'administrator create it, then run as owner: select chatter.grant_roles();';
      end;
    end if;
  end loop;
end
$$;

create function chatter.grant_roles() returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_role text;
begin
  -- Postgres lets everybody execute new functions; here nobody does unless named.
  revoke all on all functions in schema chatter from public;

  if pg_catalog.to_regrole('chatter_app') is not null then
    grant usage on schema chatter to chatter_app;
    grant execute on function
      chatter.clock(), chatter.uuid7(), chatter.lock_conversations(uuid[]),
      chatter.erase_conversation(uuid)
    to chatter_app;
    grant select on
      chatter.users, chatter.conversations, chatter.workflow_executions, chatter.messages,
      chatter.tool_calls
    to chatter_app;
    grant insert (id, external_id, role, metadata, created_at) on chatter.users to chatter_app;
    grant update (metadata) on chatter.users to chatter_app;
    grant insert (id, external_id, user_id, title, status, metadata, created_at)
      on chatter.conversations to chatter_app;
    grant update (title, status, metadata) on chatter.conversations to chatter_app;
    grant insert (
      id, conversation_id, user_id, workflow_name, status, correlation_id, started_at, finished_at,
      error_type, error_message, metadata
    ) on chatter.workflow_executions to chatter_app;
    grant update (status, finished_at, error_type, error_message, metadata)
      on chatter.workflow_executions to chatter_app;
    grant insert (
      id, conversation_id, execution_id, role, kind, content, tool_calls, tool_call_id,
      provider_used, model_used, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, cost_source, usage_status,
      usage, response_time_ms, time_to_first_token_ms, finish_reason, status, error_type,
      error_message, correlation_id, metadata, created_at
    ) on chatter.messages to chatter_app;
    grant update (
      conversation_id, execution_id, role, kind, content, tool_calls, tool_call_id,
      provider_used, model_used, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, cost_source, usage_status,
      usage, response_time_ms, time_to_first_token_ms, finish_reason, status, error_type,
      error_message, correlation_id, metadata
    ) on chatter.messages to chatter_app;
    grant insert (
      id, execution_id, message_id, tool_call_id, tool_name, status, started_at, duration_ms,
      error_type, error_message
    ) on chatter.tool_calls to chatter_app;
    grant update (status, started_at, duration_ms, error_type, error_message)
      on chatter.tool_calls to chatter_app;
  end if;

  -- Readers see every figure and no text that a person or a model wrote.
  if pg_catalog.to_regrole('chatter_reader') is not null then
    grant usage on schema chatter to chatter_reader;
    grant select (id, external_id, role, created_at) on chatter.users to chatter_reader;
    grant select (
      id, external_id, user_id, status, created_at, message_count, prompt_tokens,
      completion_tokens, total_tokens, total_cost, unpriced_calls, last_message_at
    ) on chatter.conversations to chatter_reader;
    grant select (
      id, conversation_id, user_id, workflow_name, status, correlation_id, started_at,
      finished_at, error_type, model_calls, tool_calls, prompt_tokens, completion_tokens,
      total_tokens, total_cost
    ) on chatter.workflow_executions to chatter_reader;
    grant select (
      id, conversation_id, execution_id, role, kind, tool_call_id, provider_used, model_used,
      prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, cache_write_tokens,
      reasoning_tokens, cost, cost_source, usage_status, usage, response_time_ms,
      time_to_first_token_ms, finish_reason, status, error_type, correlation_id, created_at,
      model_call
    ) on chatter.messages to chatter_reader;
    grant select (
      id, execution_id, message_id, tool_call_id, tool_name, status, started_at, duration_ms,
      error_type
    ) on chatter.tool_calls to chatter_reader;
  end if;

  -- Everybody may ask which version the schema has. The table is Alembic's and
  -- is missing where the files of sql/schema were loaded by hand.
  foreach v_role in array array['chatter_app', 'chatter_reader', 'chatter_worker'] loop
    if pg_catalog.to_regrole(v_role) is not null
      and pg_catalog.to_regclass('chatter.alembic_version') is not null
    then
      execute pg_catalog.format('grant select on chatter.alembic_version to %I', v_role);
    end if;
  end loop;

  -- Workers close executions whose process died.
  if pg_catalog.to_regrole('chatter_worker') is not null then
    grant usage on schema chatter to chatter_worker;
    grant execute on function chatter.clock() to chatter_worker;
    grant select on chatter.workflow_executions to chatter_worker;
    grant update (status, finished_at, error_type, error_message)
      on chatter.workflow_executions to chatter_worker;
  end if;
end
$$;

comment on function chatter.grant_roles() is
  'Gives chatter_app, chatter_reader and chatter_worker their rights, as far as these roles exist; safe to repeat.';

do $$
declare
  v_role record;
begin
  for v_role in
    select r.name, r.purpose
    from (values
      ('chatter_app', 'Writes raw columns of chatter; no total, no delete. Grant it to the login of your app.'),
      ('chatter_reader', 'Reads the figures of chatter, no message text. Grant it to dashboards and analysts.'),
      ('chatter_worker', 'Background work of chatter: closes abandoned executions.')
    ) as r (name, purpose)
    where pg_catalog.to_regrole(r.name) is not null
      -- Not twice: of two databases that are migrated at once, one would fail
      -- with "tuple concurrently updated".
      and pg_catalog.shobj_description(pg_catalog.to_regrole(r.name), 'pg_authid')
        is distinct from r.purpose
  loop
    begin
      execute pg_catalog.format('comment on role %I is %L', v_role.name, v_role.purpose);
    exception
      -- Made by an administrator: not ours to describe.
      when insufficient_privilege then
        null;
    end;
  end loop;
end
$$;

select chatter.grant_roles();
