-- The owners of adopted conversations, as far as they are new.
insert into chatter.users (external_id)
select distinct n.name
from unnest(cast(:names as text[])) as n (name)
where n.name is not null
order by n.name
on conflict (external_id) do nothing
