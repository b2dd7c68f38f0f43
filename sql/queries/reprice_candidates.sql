-- Messages to price, a page in the order of their ids: those without a cost, and with
-- :computed those that have a computed one, too. Nothing that the provider stated or that was
-- imported. own_* is the cost by a price of one's own at the time of the call.
select
  m.id, m.provider_used, m.model_used, m.created_at, m.prompt_tokens, m.completion_tokens,
  m.cache_read_tokens, m.cache_write_tokens, m.reasoning_tokens, m.usage, m.cost,
  m.metadata -> 'usage_kinds' as usage_kinds,
  coalesce(m.metadata -> 'usage_terms', m.metadata -> 'price' -> 'terms') as usage_terms,
  chatter.cost_by(
    p, m.prompt_tokens, m.completion_tokens, m.cache_read_tokens, m.cache_write_tokens
  ) as own_cost,
  case when p.id is not null then chatter.price_details(p) end as own_details
from chatter.messages as m
  left join lateral chatter.price_at(coalesce(m.provider_used, ''), m.model_used, m.created_at) as p
    on true
where m.id > :after
  and m.model_call
  and m.usage_status = 'reported'
  and m.model_used is not null
  and (m.cost is null or (:computed and m.cost_source = 'computed'))
  and (cast(:provider as text) is null or m.provider_used = :provider)
  and (cast(:model as text) is null or m.model_used = :model)
  and (cast(:since as timestamptz) is null or m.created_at >= :since)
  and (cast(:until as timestamptz) is null or m.created_at < :until)
order by m.id
limit :limit
