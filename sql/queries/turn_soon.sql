-- The same without waiting: whether it is there to be had.
select pg_try_advisory_xact_lock(cast(:key as bigint))
