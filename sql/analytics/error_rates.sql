-- How many calls of each model fail, and what the failed ones cost.
--
-- Cancelled calls count as failed here: their answer reached nobody.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/error_rates.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

-- All calls are counted in the rollups, to the quarter of an hour; the failed ones, few of them,
-- are looked up.
with calls as (
  select u.provider, u.model, sum(u.calls)::bigint as calls
  from analytics.usage_between(
      analytics.moment(:'since', :'time_zone'),
      analytics.period_end(:'since', :'until', :'time_zone')
    ) as u
  group by u.provider, u.model
),

failures as (
  select
    coalesce(m.provider_used, '') as provider,
    coalesce(m.model_used, '') as model,
    count(*) filter (where m.status = 'failed') as failed,
    count(*) filter (where m.status = 'cancelled') as cancelled,
    sum(m.cost) as cost,
    count(*) filter (where m.cost is null) as unknown_cost
  from chatter.messages as m
  where m.model_call
    and m.status <> 'completed'
    -- Subselects, because it would be worked out for every row.
    and m.created_at >= (
      select analytics.quarter_hour(
          analytics.moment(:'since', :'time_zone') + interval '15 minutes' - interval '1 microsecond'
        )
    )
    and m.created_at < (
      select analytics.quarter_hour(
          analytics.period_end(:'since', :'until', :'time_zone') + interval '15 minutes' - interval '1 microsecond'
        )
    )
  group by 1, 2
)

select
  c.provider, c.model, c.calls,
  coalesce(f.failed, 0) as failed,
  coalesce(f.cancelled, 0) as cancelled,
  round(coalesce(f.failed + f.cancelled, 0)::numeric / c.calls, 4) as share,
  analytics.known_cost(
    coalesce(f.cost, 0), coalesce(f.failed + f.cancelled, 0), coalesce(f.unknown_cost, 0)
  ) as cost_of_failures,
  coalesce(f.unknown_cost, 0) as failures_of_unknown_cost
from calls as c
  left join failures as f on f.provider = c.provider and f.model = c.model
where c.calls > 0
order by share desc, calls desc, provider, model;
