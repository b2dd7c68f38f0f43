-- Views outside analytics, where all of ours are, that stand on views of ours, as statements: what
-- takes them off, and what puts them back. Emptied in place they keep owner, rights, comments, triggers
-- and what stands on them, while a migration makes anew what they stood on. Those that the migrating
-- user may not replace stay.
select
  pg_catalog.format('%I.%I', n.nspname, c.relname) as name,
  pg_catalog.format(
    'create or replace view %I.%I as select %s', n.nspname, c.relname,
    (
      select
        pg_catalog.string_agg(
          pg_catalog.format(
            'null::%s%s as %I', pg_catalog.format_type(a.atttypid, a.atttypmod),
            ' collate ' || nullif(a.attcollation, 0)::regcollation, a.attname
          ),
          ', ' order by a.attnum
        )
      from pg_catalog.pg_attribute as a
      where a.attrelid = c.oid and a.attnum > 0
    )
  ) as aside,
  pg_catalog.format(
    'create or replace view %I.%I%s as %s', n.nspname, c.relname,
    ' with (' || pg_catalog.array_to_string(c.reloptions, ', ') || ')', pg_catalog.pg_get_viewdef(c.oid)
  ) as back
from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where c.relkind = 'v'
  and n.nspname <> 'analytics'
  and pg_catalog.pg_has_role(c.relowner, 'usage')
  and pg_catalog.has_schema_privilege(n.oid, 'create')
  and c.oid in (
    select w.ev_class
    from pg_catalog.pg_rewrite as w
      join pg_catalog.pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
      join pg_catalog.pg_class as u on d.refclassid = 'pg_class'::regclass and u.oid = d.refobjid
      join pg_catalog.pg_namespace as o on o.oid = u.relnamespace
    where u.relkind in ('m', 'v') and o.nspname in ('chatter', 'analytics')
  )
order by c.oid;
