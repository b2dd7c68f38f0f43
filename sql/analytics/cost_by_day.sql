-- What was spent on each day of a time zone.
--
-- Exact at the edges of the day, summer time included.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cost_by_day.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  (u.bucket at time zone :'time_zone')::date as day,
  sum(u.calls)::bigint as calls,
  sum(u.turns)::bigint as turns,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls
from analytics.usage_steps(
    analytics.moment(:'since', :'time_zone'),
    analytics.period_end(:'since', :'until', :'time_zone'),
    :'time_zone', 'day'
  ) as u
group by 1
having sum(u.messages) <> 0
order by 1;
