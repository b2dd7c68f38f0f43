-- Adopted conversations, as far as they are new: one without messages is one, too. No
-- total is taken over. (No conflict target: the unique index is partial.)
insert into chatter.conversations (user_id, external_id, title, status, created_at)
select u.id, n.external_id, n.title, n.status, coalesce(n.created_at, chatter.clock())
from
  unnest(
    cast(:external_ids as text[]), cast(:names as text[]), cast(:titles as text[]),
    cast(:statuses as text[]), cast(:times as timestamptz[])
  ) as n (external_id, name, title, status, created_at)
  left join chatter.users as u on u.external_id = n.name
order by u.id, n.external_id
on conflict do nothing
