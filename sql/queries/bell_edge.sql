-- Taken after the bell was let go: who did not ring has a lower transaction id. An id of our
-- own is drawn for that, because a snapshot's xmax is only one past what has
-- completed: a transaction that is the newest and still runs is beyond it.
select pg_catalog.pg_current_xact_id()::text;
