select pg_catalog.pg_advisory_unlock(chatter.bell());
