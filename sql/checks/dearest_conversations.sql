-- The dearest conversations are those with the highest totals.
-- Mend: select analytics.rebuild_dearest();
with told as (
  select d.place, d.conversation_id from analytics.dearest_conversations_live as d
),

recounted as (
  select row_number() over (order by c.total_cost desc, c.id) as place, c.id as conversation_id
  from chatter.conversations as c
  where c.total_cost > 0
  order by c.total_cost desc, c.id
  limit 1000
)

select place, t.conversation_id as told, r.conversation_id as recounted
from told as t
  full join recounted as r using (place)
where t.conversation_id is distinct from r.conversation_id
order by place
