-- The models that cost most.
select
  coalesce(nullif(m.model_used, ''), '(not said)') as model,
  count(*) as calls,
  coalesce(sum(m.prompt_tokens), 0)::bigint as prompt,
  coalesce(sum(m.completion_tokens), 0)::bigint as completion,
  analytics.known_cost(coalesce(sum(m.cost), 0), count(*), count(*) filter (where m.cost is null)) as cost
from chatter.messages as m
where m.model_call
group by 1
order by cost desc nulls last, model
limit :limit
