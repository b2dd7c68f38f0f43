-- Who holds the advisory lock of that number here; whoever may connect can.
select a.pid, a.usename, a.application_name
from pg_catalog.pg_locks as l
  join pg_catalog.pg_stat_activity as a on a.pid = l.pid
where l.locktype = 'advisory'
  and l.granted
  and l.objsubid = 1
  and (l.classid::bigint << 32) + l.objid::bigint = cast(:key as bigint)
  and l.database = (select d.oid from pg_catalog.pg_database as d where d.datname = current_database())
