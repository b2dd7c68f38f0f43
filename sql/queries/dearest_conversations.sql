-- The conversations that cost most. Their totals are there: nothing is added up.
select
  coalesce(c.external_id, c.title, c.id::text) as conversation,
  c.message_count as messages,
  c.prompt_tokens as prompt,
  c.completion_tokens as completion,
  c.last_message_at::date as last_day,
  trim_scale(c.total_cost) as cost
from chatter.conversations as c
order by c.total_cost desc, c.id
limit :limit
