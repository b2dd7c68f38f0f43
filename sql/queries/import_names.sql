-- The conversations that the chunk names, each with its first time.
insert into pg_temp.import_names (conversation, "user", began)
select i.conversation, i."user", min(i."time")
from pg_temp.import_chunk as i
group by i.conversation, i."user"
