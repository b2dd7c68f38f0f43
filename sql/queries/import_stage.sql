-- What an import needs for itself, gone with its transaction.

-- The rows read last. No default and no constraint, since Python has checked each
-- value; `line` and `keyed` are for what may have to be said about a row.
create temporary table import_chunk (
  line bigint not null,
  -- Whether the id is made from a key of the file.
  keyed boolean not null,
  id uuid not null,
  conversation text not null,
  -- Empty when the row has no user, so that plain equality joins it.
  "user" text not null,
  -- Microseconds since 1970.
  "time" bigint,
  role text,
  kind text,
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
  status text,
  error_type text,
  error_message text,
  correlation_id text,
  metadata jsonb
);

-- Rows of conversations that others can write to, too: they wait until the file is read.
create temporary table import_deferred (like pg_temp.import_chunk);

-- Every row's id, to find one that comes twice.
create temporary table import_ids (
  id uuid not null,
  line bigint not null,
  keyed boolean not null
);

-- Conversations that rows can be booked to by now.
create temporary table import_targets (
  conversation text not null,
  "user" text not null,
  id uuid not null,
  -- Whether this import made it, so that nobody else can see or lock it yet.
  made boolean not null,
  -- Without statistics the planner may loop over these tables: then at least by index.
  primary key (conversation, "user")
);

-- The conversations that the chunk names: a tenth of its rows, or fewer.
create temporary table import_names (
  conversation text not null,
  "user" text not null,
  began bigint
);

-- The chunk as rows of messages, as far as their conversations may be written to.
-- What the file leaves open gets its default here: the columns that a trigger
-- would complete, too, because that costs a call per row.
create temporary view import_bookable as
select
  i.line,
  i.id,
  t.id as conversation_id,
  coalesce(i.role, 'assistant') as role,
  coalesce(i.kind, 'turn') as kind,
  i.content,
  i.tool_calls,
  i.tool_call_id,
  i.provider_used,
  i.model_used,
  i.prompt_tokens,
  i.completion_tokens,
  coalesce(
    i.total_tokens,
    i.prompt_tokens + coalesce(i.completion_tokens, 0),
    i.completion_tokens
  ) as total_tokens,
  i.cache_read_tokens,
  i.cache_write_tokens,
  i.reasoning_tokens,
  i.cost,
  coalesce(i.cost_source, case when i.cost is not null then 'imported' end) as cost_source,
  coalesce(
    i.usage_status,
    case
      when coalesce(i.role, 'assistant') <> 'assistant' and i.model_used is null then null
      when coalesce(i.prompt_tokens, i.completion_tokens, i.total_tokens) is null then 'unknown'
      else 'reported'
    end
  ) as usage_status,
  i.usage,
  i.response_time_ms,
  i.time_to_first_token_ms,
  i.finish_reason,
  coalesce(i.status, 'completed') as status,
  i.error_type,
  i.error_message,
  i.correlation_id,
  coalesce(i.metadata, '{}') as metadata,
  coalesce(timestamptz 'epoch' + i."time" * interval '1 microsecond', chatter.clock()) as created_at
from pg_temp.import_chunk as i
  join pg_temp.import_targets as t on t.conversation = i.conversation and t."user" = i."user"
