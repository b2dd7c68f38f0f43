-- The models that cost most.
select
  coalesce(m.model_used, '(not said)') as model,
  count(*) as calls,
  coalesce(sum(m.prompt_tokens), 0)::bigint as prompt,
  coalesce(sum(m.completion_tokens), 0)::bigint as completion,
  trim_scale(coalesce(sum(m.cost), 0)) as cost
from chatter.messages as m
where m.model_call
group by m.model_used
order by cost desc, model
limit :limit
