-- The rows put aside are the next chunk.
insert into pg_temp.import_chunk
select d.*
from pg_temp.import_deferred as d
