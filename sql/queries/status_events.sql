-- How many events are kept; how many are of transactions still to come here: of a copy of
-- another cluster's books, whose readers would hear them late, or never.
select
  count(*) as events,
  count(*) filter (
    where e.xact_id >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
  ) as events_of_another_cluster
from chatter.events as e
