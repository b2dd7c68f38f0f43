-- True: this session is the awake reader, and nobody rings until it lets go.
select pg_catalog.pg_try_advisory_lock(chatter.bell());
