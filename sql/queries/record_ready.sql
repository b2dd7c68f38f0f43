-- Whether the books are there, and every trigger function has its trigger: pg_restore makes those
-- last, long after keys and rows, and what is booked before that is in no total. And whether these are no other server's
-- books, copied here by a subscription: their events have the ids that ours would get.
select pg_catalog.to_regclass('chatter.messages') is not null
and not exists (
  select from pg_catalog.pg_subscription_rel as s
  where s.srrelid = pg_catalog.to_regclass('chatter.events')
)
and not exists (
  select from pg_catalog.pg_proc as p
  where p.pronamespace in (
      select n.oid from pg_catalog.pg_namespace as n where n.nspname in ('chatter', 'analytics')
    )
    and p.prorettype = 'pg_catalog.trigger'::regtype
    and not exists (
      select from pg_catalog.pg_trigger as t where t.tgfoid = p.oid and not t.tgisinternal
    )
)
