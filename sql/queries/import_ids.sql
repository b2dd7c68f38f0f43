-- Remembers the chunk's ids.
insert into pg_temp.import_ids (id, line, keyed)
select i.id, i.line, i.keyed
from pg_temp.import_chunk as i
