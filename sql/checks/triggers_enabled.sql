-- No trigger of the schema is switched off.
-- Mend: alter table chatter.<table> enable trigger <trigger>; then: select * from chatter.recount();
select
  c.relname as table_name,
  t.tgname as trigger_name,
  t.tgenabled as state
from pg_catalog.pg_trigger as t
  join pg_catalog.pg_class as c on c.oid = t.tgrelid
where c.relnamespace = 'chatter'::regnamespace
  and t.tgenabled <> 'O'
order by c.relname, t.tgname
