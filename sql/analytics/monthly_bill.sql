-- The bill of each user for each month of a time zone, as CSV.
--
-- A line for each user, month and model; sums to the cent are for whoever sends it.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/monthly_bill.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  m.month::date as month,
  coalesce(p.external_id, '(nobody)') as "user",
  u.provider, u.model,
  sum(u.calls)::bigint as calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls
from (
  select distinct date_trunc('month', u.bucket at time zone :'time_zone') as month
  from analytics.usage_steps(
      analytics.moment(:'since', :'time_zone'),
      analytics.period_end(:'since', :'until', :'time_zone'),
      :'time_zone', 'day'
    ) as u
) as m
  cross join lateral analytics.user_usage(
    greatest(analytics.moment(m.month::text, :'time_zone'), analytics.moment(:'since', :'time_zone')),
    least(
      analytics.moment((m.month + interval '1 month')::text, :'time_zone'),
      analytics.period_end(:'since', :'until', :'time_zone')
    )
  ) as u
  left join chatter.users as p on p.id = u.user_id
group by 1, u.user_id, p.external_id, u.provider, u.model
having sum(u.calls) <> 0 or sum(u.cost) <> 0
order by 1, 2, u.user_id, cost desc nulls last, u.provider, u.model;
