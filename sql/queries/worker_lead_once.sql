-- True: this transaction is the one that works, where a pooler parts it from the next.
select pg_catalog.pg_try_advisory_xact_lock(chatter.bell() + 3);
