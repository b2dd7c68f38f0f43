-- The conversations of a batch, for a trial.
insert into pg_temp.import_names (conversation, "user")
select n.external_id, coalesce(n.name, '')
from unnest(cast(:external_ids as text[]), cast(:names as text[])) as n (external_id, name)
