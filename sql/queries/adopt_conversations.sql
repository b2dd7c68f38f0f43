-- Adopted conversations, as far as they are new: one without messages is one, too. No
-- total is taken over. A time that the books don't take, such as the year 1 of an empty field,
-- is none. (No conflict target: the unique index is partial.)
insert into chatter.conversations (user_id, external_id, title, status, created_at)
select
  u.id, n.external_id, n.title, n.status,
  case
    when n.created_at >= '1970-01-01 00:00:00+00' and n.created_at < '9999-01-01 00:00:00+00' then n.created_at
    else chatter.clock()
  end
from
  unnest(
    cast(:external_ids as text[]), cast(:names as text[]), cast(:titles as text[]),
    cast(:statuses as text[]), cast(:times as timestamptz[])
  ) as n (external_id, name, title, status, created_at)
  left join chatter.users as u on u.external_id = n.name
order by u.id, n.external_id
on conflict do nothing
