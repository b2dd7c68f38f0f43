-- Messages, under their execution's conversation. The left join is meant: a row
-- whose execution is missing must fail (conversation_id is not null), not vanish. A price of
-- one's own at the time of the call comes before the price list's; what the provider stated
-- comes before both. Of a hundred records, as it takes an array to have, a planner reads small
-- tables whole; of those of one type it expects few, and goes by key (so in every record_* query that looks up).
insert into chatter.messages (
  id, conversation_id, execution_id, role, kind, content, tool_calls, tool_call_id, provider_used,
  model_used, prompt_tokens, completion_tokens, total_tokens, cache_read_tokens,
  cache_write_tokens, reasoning_tokens, cost, cost_source, usage_status, usage, response_time_ms,
  time_to_first_token_ms, finish_reason, status, error_type, error_message, correlation_id,
  metadata, created_at
)
select
  r.id, e.conversation_id, r.execution_id, r.role, r.kind, r.content, r.tool_calls,
  r.tool_call_id, r.provider_used, r.model_used, r.prompt_tokens, r.completion_tokens,
  r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens,
  coalesce(p.cost, r.cost), case when p.cost is null then r.cost_source else 'computed' end,
  r.usage_status, r.usage, r.response_time_ms, r.time_to_first_token_ms, r.finish_reason, r.status, r.error_type, r.error_message, r.correlation_id,
  case when p.cost is null then r.metadata else r.metadata || jsonb_build_object('price', p.details) end,
  r.created_at
from jsonb_to_recordset(cast(:rows as jsonb)) as r (
    type text,
    id uuid,
    execution_id uuid,
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
    metadata jsonb,
    created_at timestamptz
  )
  left join chatter.workflow_executions as e on e.id = r.execution_id
  left join lateral (
    select
      chatter.cost_by(
        x, r.prompt_tokens, r.completion_tokens, r.cache_read_tokens, r.cache_write_tokens
      ) as cost,
      chatter.price_details(x) as details
    from chatter.price_at(coalesce(r.provider_used, ''), r.model_used, r.created_at) as x
    where r.usage_status = 'reported' and r.cost_source is distinct from 'provider'
  ) as p on true
where r.type = 'MessageRow'
on conflict (id) do nothing
