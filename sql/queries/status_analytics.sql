-- What waits to be folded, and who does it.
select
  (select count(*) from analytics.deltas)
  + (select count(*) from analytics.tool_deltas) as deltas_waiting,
  s.folded_at,
  (select min(v.refreshed_at) from analytics.views as v) as views_refreshed_at,
  s.worker,
  s.worked_at,
  (s.worked_at is null or s.worked_at < chatter.clock() - interval '1 minute') as worker_missing
from analytics.state as s
