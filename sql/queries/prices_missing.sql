-- Models whose calls have no cost although what they used is known.
select
  coalesce(m.provider_used, '') as provider,
  coalesce(m.model_used, '') as model,
  count(*) as calls,
  sum(m.prompt_tokens)::bigint as prompt_tokens,
  sum(m.completion_tokens)::bigint as completion_tokens,
  min(m.created_at) as first_call,
  max(m.created_at) as last_call
from chatter.messages as m
where m.model_call and m.cost is null and m.usage_status = 'reported'
group by 1, 2
order by calls desc, 1, 2
