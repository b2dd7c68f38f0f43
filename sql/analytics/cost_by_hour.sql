-- What was spent in each hour of a time zone.
--
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cost_by_hour.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  date_trunc('hour', u.bucket at time zone :'time_zone') as hour,
  sum(u.calls)::bigint as calls,
  sum(u.total_tokens)::bigint as total_tokens,
  analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls
from analytics.usage_steps(
    analytics.moment(:'since', :'time_zone'),
    analytics.period_end(:'since', :'until', :'time_zone'),
    :'time_zone', 'hour'
  ) as u
group by 1
having sum(u.messages) <> 0
order by 1;
