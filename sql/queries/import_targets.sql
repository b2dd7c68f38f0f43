-- The conversations of the rows put aside: they were there before the import. Two
-- branches, because `user_id is not distinct from` could use no index and no hash.
with named as (
  select distinct i.conversation, i."user"
  from pg_temp.import_deferred as i
)

insert into pg_temp.import_targets (conversation, "user", id, made)
select n.conversation, n."user", c.id, false
from named as n
  join chatter.users as u on u.external_id = n."user"
  join chatter.conversations as c on c.user_id = u.id and c.external_id = n.conversation
union all
select n.conversation, n."user", c.id, false
from named as n
  join chatter.conversations as c on c.user_id is null and c.external_id = n.conversation
where n."user" = ''
