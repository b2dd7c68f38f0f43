-- What waits to be folded, who does it, and who keeps it from being done: holds the lock of
-- folds, of refreshes or of the lead (chatter.bell() + 1 to 3, which not every reader may call)
-- and is no worker, by its name or its rights.
select
  (select count(*) from analytics.deltas)
  + (select count(*) from analytics.tool_deltas) as deltas_waiting,
  s.folded_at,
  (select min(v.refreshed_at) from analytics.views as v) as views_refreshed_at,
  s.worker,
  s.worked_at,
  (s.worked_at is null or s.worked_at < chatter.clock() - interval '1 minute') as worker_missing,
  (
    select string_agg(
      distinct format('session %s, login %s, application %L', a.pid, a.usename, a.application_name), '; '
    )
    from pg_catalog.pg_locks as l
      join pg_catalog.pg_stat_activity as a on a.pid = l.pid
    where l.locktype = 'advisory'
      and l.granted
      and l.objsubid = 1
      and (l.classid::bigint << 32) + l.objid::bigint between 7163371829926093155 and 7163371829926093157
      and l.database = (select d.oid from pg_catalog.pg_database as d where d.datname = current_database())
      and not (
        a.application_name = 'chatter worker'
        and has_function_privilege(a.usesysid, 'analytics.fold(integer)', 'execute')
      )
  ) as work_held_by
from analytics.state as s
