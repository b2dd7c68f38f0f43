-- What each conversation cost in a period.
--
-- Of what was spent in the period, however old the conversation is.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cost_by_conversation.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif
\if :{?limit} \else \set limit 20 \endif

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
from chatter.messages as m
  join chatter.conversations as c on c.id = m.conversation_id
-- Subselects, because it would be worked out for every row.
where m.created_at >= (select analytics.moment(:'since', :'time_zone'))
  and m.created_at < (select analytics.moment(:'until', :'time_zone'))
group by m.conversation_id, c.external_id
order by cost desc nulls last, calls desc, m.conversation_id
limit :'limit'::bigint;
