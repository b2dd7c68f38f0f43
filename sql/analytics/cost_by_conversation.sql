-- What each conversation cost in a period.
--
-- Of what was spent in the period, however old the conversation is.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cost_by_conversation.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif
\if :{?limit} \else \set limit all \endif

with period as materialized (
  -- Once: it would be worked out for every row.
  select
    analytics.moment(:'since', :'time_zone') as since,
    analytics.period_end(:'since', :'until', :'time_zone') as until
)

select
  m.conversation_id,
  c.external_id as conversation,
  count(*) filter (where m.model_call) as calls,
  coalesce(sum(m.total_tokens), 0)::bigint as total_tokens,
  analytics.known_cost(
    coalesce(sum(m.cost), 0), count(*) filter (where m.model_call),
    count(*) filter (where m.model_call and m.cost is null)
  ) as cost,
  count(*) filter (where m.model_call and m.cost is null) as unpriced_calls
from period as p
  join chatter.messages as m on m.created_at >= p.since and m.created_at < p.until
  join chatter.conversations as c on c.id = m.conversation_id
group by m.conversation_id, c.external_id
order by cost desc nulls last, calls desc, m.conversation_id
limit nullif(:'limit', 'all')::bigint;
