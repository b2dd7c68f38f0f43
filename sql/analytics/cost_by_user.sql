-- What each user's calls cost.
--
-- Users come from the conversations; calls of unknown price are counted, not guessed.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cost_by_user.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif
\if :{?limit} \else \set limit all \endif

select
  coalesce(p.external_id, '(nobody)') as "user",
  sum(u.calls)::bigint as calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls
from analytics.user_totals(
    analytics.moment(:'since', :'time_zone'),
    analytics.period_end(:'since', :'until', :'time_zone')
  ) as u
  left join chatter.users as p on p.id = u.user_id
group by u.user_id, p.external_id
having sum(u.messages) <> 0
order by cost desc nulls last, calls desc, "user"
limit nullif(:'limit', 'all')::bigint;
