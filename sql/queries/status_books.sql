-- What is in the books; the numbers of rows are exact.
select
  (select count(*) from chatter.users) as users,
  (select count(*) from chatter.conversations) as conversations,
  count(*) as messages,
  count(*) filter (where m.model_call) as model_calls,
  coalesce(sum(m.prompt_tokens), 0)::bigint as prompt_tokens,
  coalesce(sum(m.completion_tokens), 0)::bigint as completion_tokens,
  analytics.known_cost(
    coalesce(sum(m.cost), 0), count(*) filter (where m.model_call),
    count(*) filter (where m.model_call and m.cost is null)
  ) as cost,
  count(*) filter (where m.model_call and m.cost is null) as unpriced_calls,
  count(*) filter (where m.model_call and m.usage_status = 'unknown') as unknown_usage,
  max(m.created_at) as latest_message_at
from chatter.messages as m
