-- Models whose calls have no cost although what they used is known, and whether there was a
-- price of one's own at the last of them (as chatter.price_at has it, which readers can't call).
select
  c.*,
  coalesce((
    select p.prompt_price is not null
    from chatter.prices as p
    where p.provider = c.provider and p.model = c.model and p.valid_from <= c.last_call
    order by p.valid_from desc, p.created_at desc
    limit 1
  ), false) as known
from (
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
) as c
order by c.calls desc, c.provider, c.model
