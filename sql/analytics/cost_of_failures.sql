-- What runs that came to nothing have cost, by the error that ended them.
--
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cost_of_failures.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

with period as materialized (
  -- Once: it would be worked out for every row.
  select
    analytics.moment(:'since', :'time_zone') as since,
    analytics.period_end(:'since', :'until', :'time_zone') as until
)

select
  e.workflow_name, e.status, coalesce(e.error_type, '') as error_type,
  count(*) as executions,
  sum(e.model_calls)::bigint as calls,
  analytics.known_cost(sum(e.total_cost), sum(e.model_calls), sum(k.unpriced_calls)) as cost,
  sum(k.unpriced_calls)::bigint as unpriced_calls
from period as p
  join chatter.workflow_executions as e on e.started_at >= p.since and e.started_at < p.until
  cross join lateral (
    select count(*) as unpriced_calls
    from chatter.messages as m
    where m.execution_id = e.id and m.model_call and m.cost is null
  ) as k
where e.status in ('failed', 'cancelled', 'abandoned')
group by 1, 2, 3
order by cost desc nulls last, executions desc, 1, 2, 3;
