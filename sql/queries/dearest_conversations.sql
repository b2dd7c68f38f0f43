-- The conversations that cost most.
select
  coalesce(c.external_id, c.title, c.id::text) as conversation,
  u.external_id as user_name,
  c.message_count,
  c.prompt_tokens,
  c.completion_tokens,
  trim_scale(c.total_cost) as total_cost,
  c.unpriced_calls,
  c.last_message_at
from chatter.conversations as c
  left join chatter.users as u on u.id = c.user_id
order by c.total_cost desc, c.id
limit :limit
