-- What runs at this moment, with what it has cost so far.
--
--
--   psql  -f sql/analytics/running.sql

select
  r.id as execution_id, r.workflow_name, r.conversation_id, r.started_at,
  round(extract(epoch from r.elapsed), 1) as seconds,
  r.model_calls, r.tool_calls, r.total_tokens, trim_scale(r.total_cost) as cost
from analytics.running_executions_live as r
order by r.started_at, r.id;
