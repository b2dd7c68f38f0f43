-- The conversations that cost most since they began.
--
-- The first 20, or as many as limit says.
--
--   psql -v limit=10 -f sql/analytics/dearest_conversations.sql

\if :{?limit} \else \set limit 20 \endif

select
  d.place, d.conversation_id, d.external_id as conversation, u.external_id as "user",
  d.message_count, d.total_tokens, trim_scale(d.total_cost) as cost, d.unpriced_calls,
  d.last_message_at
from analytics.dearest_conversations_live as d
  left join chatter.users as u on u.id = d.user_id
where d.place <= :'limit'::bigint
order by d.place;
