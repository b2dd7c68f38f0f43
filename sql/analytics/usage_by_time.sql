-- Calls, tokens and cost over time, by model: the numbers of a chart.
--
-- step is hour or day, of the time zone asked for.
--
--   psql -v since=2026-01-01 -v step=day -v time_zone=Europe/Berlin -f sql/analytics/usage_by_time.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif
\if :{?step} \else \set step day \endif

select
  date_trunc(:'step', u.bucket at time zone :'time_zone') as at, u.model,
  sum(u.calls)::bigint as calls,
  sum(u.failed_calls)::bigint as failed_calls,
  sum(u.turns)::bigint as turns,
  sum(u.total_tokens)::bigint as total_tokens,
  analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls
from analytics.usage_steps(
    analytics.moment(:'since', :'time_zone'),
    analytics.period_end(:'since', :'until', :'time_zone'),
    :'time_zone', :'step'
  ) as u
group by 1, u.model
having sum(u.messages) <> 0
order by 1, cost desc nulls last, u.model;
