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
  constraint messages_tool_calls_check check (not jsonb_path_exists(tool_calls, 'strict $.**{100}')),
  constraint messages_usage_check check (not jsonb_path_exists(usage, 'strict $.**{100}')),
  constraint messages_metadata_check
    check (jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $.**{100}')),
  -- What any language's dates can hold, in any time zone: one row with another time, infinity
  -- for one, would be an error to everybody who reads it.
  constraint messages_created_at_check
    check (created_at >= '1970-01-01 00:00:00+00' and created_at < '9999-01-01 00:00:00+00')
);

-- A conversation's history in order, its newest row, and whether it has any.
create index messages_conversation_id_created_at_idx
  on chatter.messages (conversation_id, created_at);
-- The calls of a run, and whether it has any.
create index messages_execution_id_idx
  on chatter.messages (execution_id)
  where execution_id is not null;
-- The story of a request. Rows of a run are found by the run, so that they pay nothing.
create index messages_correlation_id_idx
  on chatter.messages (correlation_id)
  where correlation_id is not null and execution_id is null;
-- Failed calls, few of many.
create index messages_failed_idx on chatter.messages (created_at)
  where status <> 'completed';

-- Rows that leave the derived columns open get them filled. The WHEN clause
-- spares the call for writers that say everything, as the recorder does.
create function chatter.tg_messages__complete() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

-- Usage that becomes known later, by a correction or an adoption, is reported, or no price
-- would be computed of it.
create function chatter.tg_messages__reported() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  new.usage_status := 'reported';
  return new;
end
$$;

create trigger _120_reported
  before update on chatter.messages
  for each row
  when (
    old.usage_status = 'unknown'
    and new.usage_status = 'unknown'
    and old.total_tokens is null
    and new.total_tokens is not null
  )
  execute function chatter.tg_messages__reported();

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
comment on index chatter.messages_correlation_id_idx is 'The story of a request, as far as it is outside a run.';
comment on index chatter.messages_failed_idx is 'Failed and cancelled calls by time.';
comment on function chatter.tg_messages__complete() is 'Fills total_tokens and usage_status where a writer left them open.';
comment on function chatter.tg_messages__retotal() is 'Keeps total_tokens the sum of its parts where it was their sum before.';
comment on function chatter.tg_messages__reported() is 'Says reported of usage that was unknown and is filled in.';
comment on trigger _100_complete on chatter.messages is 'Fills total_tokens and usage_status where a writer left them open.';
comment on trigger _110_retotal on chatter.messages is 'Keeps total_tokens the sum of its parts where it was their sum before.';
comment on trigger _120_reported on chatter.messages is 'Says reported of usage that was unknown and is filled in.';
