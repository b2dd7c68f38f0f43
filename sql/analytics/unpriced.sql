-- Calls whose price or usage nobody knows: what the costs leave out.
--
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/unpriced.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  u.provider, u.model,
  sum(u.calls)::bigint as calls,
  sum(u.unpriced_calls)::bigint as unpriced_calls,
  sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_between(
    analytics.moment(:'since', :'time_zone'),
    analytics.period_end(:'since', :'until', :'time_zone')
  ) as u
group by u.provider, u.model
having sum(u.unpriced_calls) <> 0 or sum(u.unknown_usage) <> 0
order by unpriced_calls desc, unknown_usage desc, u.provider, u.model;
