-- What of the rows that a trial has seen isn't in the books yet.
select
  (
    select count(distinct i.id)
    from pg_temp.import_ids as i
    where not exists (select from chatter.messages as m where m.id = i.id)
  ) as booked,
  (
    select count(*)
    from (select distinct n.conversation, n."user" from pg_temp.import_names as n) as d
    where not exists (
      select from chatter.conversations as c
        join chatter.users as u on u.id = c.user_id
      where u.external_id = d."user" and c.external_id = d.conversation
    )
    and not exists (
      select from chatter.conversations as c
      where d."user" = '' and c.user_id is null and c.external_id = d.conversation
    )
  ) as new_conversations,
  (
    select count(distinct n."user")
    from pg_temp.import_names as n
    where n."user" <> '' and not exists (select from chatter.users as u where u.external_id = n."user")
  ) as new_users
