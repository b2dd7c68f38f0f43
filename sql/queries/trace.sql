-- The story of one correlation id, in order: runs, model calls, tool calls, messages,
-- and what happened at the door. A call is placed where it began.
with runs as (
  select e.*, coalesce(e.user_id, c.user_id) as owner_id
  from chatter.workflow_executions as e
    left join chatter.conversations as c on c.id = e.conversation_id
  where e.correlation_id = :correlation_id
),

rows as (
  select m.*, r.owner_id
  from runs as r
    join chatter.messages as m on m.execution_id = r.id
  union all
  -- Rows outside a run, as imports and psql write them; a partial index has them.
  select m.*, c.user_id
  from chatter.messages as m
    join chatter.conversations as c on c.id = m.conversation_id
  where m.correlation_id = :correlation_id and m.execution_id is null
),

story as (
  select
    r.started_at as began_at,
    'workflow' as step,
    r.workflow_name as name,
    r.status,
    extract(epoch from r.finished_at - r.started_at)::float8 * 1000 as duration_ms,
    case when k.prompt_counted then r.prompt_tokens end as prompt_tokens,
    case when k.completion_counted then r.completion_tokens end as completion_tokens,
    case when k.priced then r.total_cost end as cost,
    r.error_type,
    r.id,
    r.id as execution_id,
    r.conversation_id,
    r.owner_id as user_id
  from runs as r
    -- Sums of a run whose calls tell nothing are not known, and not 0.
    cross join lateral (
      select
        r.model_calls = 0 or r.prompt_tokens > 0
        or coalesce(bool_or(m.prompt_tokens is not null), false) as prompt_counted,
        r.model_calls = 0 or r.completion_tokens > 0
        or coalesce(bool_or(m.completion_tokens is not null), false) as completion_counted,
        r.model_calls = 0 or r.total_cost > 0
        or coalesce(bool_or(m.cost is not null), false) as priced
      from rows as m
      where m.execution_id = r.id and m.model_call
    ) as k
  union all
  select
    m.created_at - coalesce(m.response_time_ms, 0) * interval '1 millisecond',
    case when m.model_call then 'model call' else m.role || ' message' end,
    m.model_used,
    m.status,
    m.response_time_ms,
    m.prompt_tokens,
    m.completion_tokens,
    m.cost,
    m.error_type,
    m.id,
    m.execution_id,
    m.conversation_id,
    m.owner_id
  from rows as m
  union all
  select
    coalesce(t.started_at, m.created_at, r.started_at),
    'tool call',
    t.tool_name,
    t.status,
    t.duration_ms,
    null,
    null,
    null,
    t.error_type,
    t.id,
    t.execution_id,
    r.conversation_id,
    r.owner_id
  from runs as r
    join chatter.tool_calls as t on t.execution_id = r.id
    left join chatter.messages as m on m.id = t.message_id
  union all
  select
    s.created_at, 'security event', s.event_type, s.severity, null, null, null, null, null, s.id,
    null, null, s.user_id
  from chatter.security_events as s
  where s.correlation_id = :correlation_id
)

select s.*
from story as s
-- A run before what happened in it; ids break ties in the order of writing.
order by s.began_at, s.step <> 'workflow', s.id
