-- What runs at this moment, with what it has cost so far.
--
--
--   psql  -f sql/analytics/running.sql

select
  r.id as execution_id, r.workflow_name, r.conversation_id, r.started_at,
  round(extract(epoch from r.elapsed), 1) as seconds,
  r.model_calls, r.tool_calls, r.total_tokens,
  analytics.known_cost(r.total_cost, r.model_calls, k.unpriced_calls) as cost, k.unpriced_calls
from analytics.running_executions_live as r
  cross join lateral (
    select count(*) as unpriced_calls
    from chatter.messages as m
    where m.execution_id = r.id and m.model_call and m.cost is null
  ) as k
order by r.started_at, r.id;
