-- The chunk's conversations that are not there yet, begun with their first row.
-- (No conflict target: the unique index is partial.)
with made as (
  insert into chatter.conversations (user_id, external_id, created_at)
  select
    u.id,
    n.conversation,
    coalesce(timestamptz 'epoch' + n.began * interval '1 microsecond', chatter.clock())
  from pg_temp.import_names as n
    left join chatter.users as u on u.external_id = n."user"
  where not exists (
    select from pg_temp.import_targets as t
    where t.conversation = n.conversation
      and t."user" = n."user"
  )
  order by u.id, n.conversation
  on conflict do nothing
  returning id, user_id, external_id
)

insert into pg_temp.import_targets (conversation, "user", id, made)
select m.external_id, coalesce(u.external_id, ''), m.id, true
from made as m
  left join chatter.users as u on u.id = m.user_id
