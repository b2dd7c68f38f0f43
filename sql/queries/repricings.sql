-- Pricings afterwards, the newest first, with what they changed.
select
  r.id, r.created_at, r.created_by, r.reason, r.finished_at, r.undone_at,
  count(m.message_id) as calls,
  trim_scale(coalesce(sum(m.cost - coalesce(m.old_cost, 0)), 0)) as difference
from chatter.repricings as r
  left join chatter.repriced_messages as m on m.repricing_id = r.id
group by r.id
order by r.created_at desc
