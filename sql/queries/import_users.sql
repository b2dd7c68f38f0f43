-- The chunk's users that are not there yet.
insert into chatter.users (external_id)
select distinct n."user"
from pg_temp.import_names as n
where n."user" <> ''
order by n."user"
on conflict (external_id) do nothing
