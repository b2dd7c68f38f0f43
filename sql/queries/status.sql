-- One row on the state of the books. The numbers of rows are exact, the size is of
-- both schemas with their indexes.
select
  split_part(version(), ' ', 2) as postgres_version,
  (select count(*) from chatter.users) as users,
  (select count(*) from chatter.conversations) as conversations,
  m.messages,
  m.model_calls,
  m.prompt_tokens,
  m.completion_tokens,
  trim_scale(m.cost) as cost,
  m.unpriced_calls,
  m.unknown_usage,
  m.latest_message_at,
  (select count(*) from chatter.workflow_executions as e where e.status = 'running') as running,
  (select min(e.started_at) from chatter.workflow_executions as e where e.status = 'running')
    as running_since,
  (select count(*) from chatter.events) as events,
  (select count(*) from analytics.deltas)
  + (select count(*) from analytics.tool_deltas) as deltas_waiting,
  s.folded_at,
  (select min(v.refreshed_at) from analytics.views as v) as views_refreshed_at,
  s.worker,
  s.worked_at,
  (s.worked_at is null or s.worked_at < chatter.clock() - interval '1 minute') as worker_missing,
  (
    select sum(pg_total_relation_size(c.oid))::bigint
    from pg_catalog.pg_class as c
    where c.relnamespace in ('chatter'::regnamespace, 'analytics'::regnamespace)
      and c.relkind in ('r', 'm', 'p')
  ) as bytes
from (
  select
    count(*) as messages,
    count(*) filter (where model_call) as model_calls,
    coalesce(sum(prompt_tokens), 0)::bigint as prompt_tokens,
    coalesce(sum(completion_tokens), 0)::bigint as completion_tokens,
    coalesce(sum(cost), 0) as cost,
    count(*) filter (where model_call and cost is null) as unpriced_calls,
    count(*) filter (where usage_status = 'unknown') as unknown_usage,
    max(created_at) as latest_message_at
  from chatter.messages
) as m
  cross join analytics.state as s
