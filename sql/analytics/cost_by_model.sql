-- What each model's calls cost.
--
-- Failed calls are in: they may have been paid for. So is what was paid for without a call.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cost_by_model.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif
\if :{?limit} \else \set limit all \endif

select
  u.provider, u.model,
  sum(u.calls)::bigint as calls,
  sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls
from analytics.usage_between(
    analytics.moment(:'since', :'time_zone'),
    analytics.period_end(:'since', :'until', :'time_zone')
  ) as u
group by u.provider, u.model
having sum(u.calls) <> 0 or sum(u.cost) <> 0
order by cost desc nulls last, calls desc, u.provider, u.model
limit nullif(:'limit', 'all')::bigint;
