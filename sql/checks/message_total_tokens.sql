-- A message with known tokens has a total, and a model call says whether its usage is known.
-- Mend: update chatter.messages set total_tokens = coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0) where total_tokens is null and coalesce(prompt_tokens, completion_tokens) is not null; update chatter.messages set usage_status = 'unknown' where model_call and usage_status is null;
select
  m.id as message_id,
  m.prompt_tokens,
  m.completion_tokens,
  m.total_tokens,
  m.usage_status
from chatter.messages as m
where (m.total_tokens is null and coalesce(m.prompt_tokens, m.completion_tokens) is not null)
  or (m.model_call and m.usage_status is null)
order by m.id
