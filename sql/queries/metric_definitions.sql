-- What the comments in the database say of every rollup and view of the analytics, and of
-- its columns: a row for each column, in the order of the relation.
select
  case c.relkind when 'r' then 'rollup' when 'm' then 'view' else 'live view' end as sort,
  c.relname as name,
  pg_catalog.obj_description(c.oid, 'pg_class') as definition,
  a.attname as column_name,
  pg_catalog.col_description(c.oid, a.attnum) as meaning
from pg_catalog.pg_class as c
  join pg_catalog.pg_attribute as a
    on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'analytics'::regnamespace
  and c.relname not in ('days', 'former_parents', 'state', 'views')
  and c.relname !~ '(^|_)(deltas|recounted|candidates|computed)$'
  and (
    c.relkind in ('r', 'm')
    -- A twin is told with its view.
    or c.relkind = 'v'
    and pg_catalog.to_regclass(
      'analytics.' || pg_catalog.quote_ident(pg_catalog.left(c.relname, -5))
    ) is null
  )
order by c.relkind = 'r', c.relkind = 'v', c.relname, a.attnum
