-- What one user's calls cost on each UTC day, by model.
--
-- user_id is ours (chatter.users.id). Days that begin or end within the period are told whole.
--
--   psql -v user_id=01a20b89-bfa0-7017-934b-bf64428340a4 -v since=2026-01-01 -f sql/analytics/usage_of_user.sql

\if :{?user_id} \else \warn 'Whose? -v user_id=ID, an id of chatter.users.' \endif
\if :{?user_id} \else \set user_id 00000000-0000-0000-0000-000000000000 \endif
\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif

select
  u.day, u.model,
  sum(u.calls)::bigint as calls,
  sum(u.failed_calls)::bigint as failed_calls,
  sum(u.turns)::bigint as turns,
  sum(u.total_tokens)::bigint as total_tokens,
  analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls
from analytics.usage_user_day_live as u
where u.user_id = :'user_id'::uuid
  and u.day >= (analytics.moment(:'since', 'UTC') at time zone 'UTC')::date
  and u.day < analytics.period_end(:'since', :'until', 'UTC') at time zone 'UTC'
group by u.day, u.model
order by u.day, cost desc nulls last, u.model;
