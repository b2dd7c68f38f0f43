-- Waits for the advisory lock of that number, and has it until the transaction ends.
select pg_advisory_xact_lock(cast(:key as bigint))
