-- The rows of one run, in order.
select
  m.role,
  m.kind,
  m.content,
  m.tool_calls,
  m.model_used,
  m.prompt_tokens,
  m.completion_tokens,
  m.cost
from chatter.messages as m
where m.execution_id = :execution_id
order by m.created_at, m.id
