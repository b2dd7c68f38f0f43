-- Totals of conversations equal the sum over their messages.
-- Mend: select * from chatter.recount();
select
  c.id as conversation_id,
  t.total,
  t.stored,
  t.recounted
from chatter.conversations as c
  left join lateral (
    select
      count(*) filter (where m.kind = 'turn') as message_count,
      coalesce(sum(m.prompt_tokens), 0) as prompt_tokens,
      coalesce(sum(m.completion_tokens), 0) as completion_tokens,
      coalesce(sum(m.total_tokens), 0) as total_tokens,
      coalesce(sum(m.cost), 0) as total_cost,
      count(*) filter (where m.model_call and m.cost is null) as unpriced_calls,
      max(m.created_at) as last_message_at
    from chatter.messages as m
    where m.conversation_id = c.id
  ) as r on true
  cross join lateral (
    values
      ('message_count', c.message_count::text, r.message_count::text),
      ('prompt_tokens', c.prompt_tokens::text, r.prompt_tokens::text),
      ('completion_tokens', c.completion_tokens::text, r.completion_tokens::text),
      ('total_tokens', c.total_tokens::text, r.total_tokens::text),
      -- Compared as numbers (0.10 is 0.1), shown as text.
      ('total_cost', trim_scale(c.total_cost)::text, trim_scale(r.total_cost)::text),
      ('unpriced_calls', c.unpriced_calls::text, r.unpriced_calls::text),
      ('last_message_at', c.last_message_at::text, r.last_message_at::text)
  ) as t (total, stored, recounted)
where t.stored is distinct from t.recounted
order by c.id, t.total
