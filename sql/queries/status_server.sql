-- The server, and the size of both schemas with their indexes.
select
  split_part(version(), ' ', 2) as postgres_version,
  (
    select sum(pg_total_relation_size(c.oid))::bigint
    from pg_catalog.pg_class as c
    where c.relnamespace in ('chatter'::regnamespace, 'analytics'::regnamespace)
      and c.relkind in ('r', 'm', 'p')
  ) as bytes
