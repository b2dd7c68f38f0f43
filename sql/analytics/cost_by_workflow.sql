-- What each workflow's runs cost.
--
-- Calls outside of a run have an empty name.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cost_by_workflow.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  u.workflow_name,
  sum(u.calls)::bigint as calls,
  sum(u.turns)::bigint as turns,
  sum(u.total_tokens)::bigint as total_tokens,
  analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls
from analytics.usage_between(
    analytics.moment(:'since', :'time_zone'),
    analytics.period_end(:'since', :'until', :'time_zone')
  ) as u
group by u.workflow_name
having sum(u.messages) <> 0
order by cost desc nulls last, calls desc, u.workflow_name;
