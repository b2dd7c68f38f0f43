-- The models that cost most.
select
  coalesce(m.model_used, '(not said)') as model,
  count(*) as model_calls,
  coalesce(sum(m.prompt_tokens), 0) as prompt_tokens,
  coalesce(sum(m.completion_tokens), 0) as completion_tokens,
  trim_scale(coalesce(sum(m.cost), 0)) as total_cost,
  count(*) filter (where m.cost is null) as unpriced_calls
from chatter.messages as m
where m.model_call
group by m.model_used
order by total_cost desc, model
limit :limit
