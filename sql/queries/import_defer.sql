-- Puts aside what of the chunk could not be booked yet.
insert into pg_temp.import_deferred
select i.*
from pg_temp.import_chunk as i
where not exists (
  select from pg_temp.import_targets as t
  where t.conversation = i.conversation
    and t."user" = i."user"
)
