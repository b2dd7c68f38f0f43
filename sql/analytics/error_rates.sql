-- How many calls of each model fail, and what the failed ones cost.
--
-- Cancelled calls count as failed here: their answer reached nobody.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/error_rates.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  coalesce(m.provider_used, '') as provider,
  coalesce(m.model_used, '') as model,
  count(*) as calls,
  count(*) filter (where m.status = 'failed') as failed,
  count(*) filter (where m.status = 'cancelled') as cancelled,
  round(avg((m.status <> 'completed')::integer), 4) as share,
  trim_scale(coalesce(sum(m.cost) filter (where m.status <> 'completed'), 0)) as cost_of_failures,
  count(*) filter (where m.status <> 'completed' and m.cost is null) as failures_of_unknown_cost
from chatter.messages as m
where m.model_call
  and m.created_at >= (:'since'::timestamp at time zone :'time_zone')
  and m.created_at < (:'until'::timestamp at time zone :'time_zone')
group by 1, 2
order by share desc, calls desc, provider, model;
