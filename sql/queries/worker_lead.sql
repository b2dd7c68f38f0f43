-- True: this session is the one that works. A constant beside chatter.bell()'s own.
select pg_catalog.pg_try_advisory_lock(chatter.bell() + 3);
