-- The rows of a materialized view are all as of when its refresh began: of the clock each had another, later
-- than what it was read from. A column can't be defined anew, so all views are made again as they were, and
-- filled if they were.
do $do$
declare
  v_statements text[];
  v_statement text;
begin
  -- How a definition reads depends on it.
  perform set_config('quote_all_identifiers', 'off', true);

  with made as (
    select
      c.oid, c.relname, c.relkind, format('analytics.%I', c.relname) as name,
      ' with (' || array_to_string(c.reloptions, ', ') || ')' as options
    from pg_class as c
    where c.relnamespace = 'analytics'::regnamespace
      and (
        c.relkind = 'm' and c.relname in (select v.name from analytics.views as v)
        or c.relname in ('latency_by_model_live', 'active_users_live')
      )
  ),

  indexes as (
    select i.indexrelid as oid
    from pg_index as i
      join made as m on m.oid = i.indrelid
  ),

  steps as (
    select
      1 as step, m.oid, 0 as place,
      format('drop view %s', m.name) as statement
    from made as m
    where m.relkind = 'v'
    union all
    select 2, m.oid, 0, format('drop materialized view %s', m.name)
    from made as m
    where m.relkind = 'm'
    union all
    select
      3, m.oid, 0,
      format(
        'create materialized view %s%s as %s with %s', m.name, m.options,
        regexp_replace(rtrim(pg_get_viewdef(m.oid), ';'), '(chatter[.])?clock[(][)] AS as_of', 'now() AS as_of'),
        case when c.relispopulated then 'data' else 'no data' end
      )
    from made as m
      join pg_class as c on c.oid = m.oid
    where m.relkind = 'm'
    union all
    select 4, i.oid, 0, pg_get_indexdef(i.oid)
    from indexes as i
    union all
    select 5, m.oid, 0, format('create view %s%s as %s', m.name, m.options, pg_get_viewdef(m.oid))
    from made as m
    where m.relkind = 'v'
    union all
    select
      6, m.oid, d.objsubid,
      case
        when d.objsubid > 0 then format('comment on column %s.%I is %L', m.name, a.attname, d.description)
        when m.relkind = 'm' then format('comment on materialized view %s is %L', m.name, d.description)
        else format('comment on view %s is %L', m.name, d.description)
      end
    from made as m
      join pg_description as d on d.classoid = 'pg_class'::regclass and d.objoid = m.oid
      left join pg_attribute as a on a.attrelid = m.oid and a.attnum = d.objsubid
    union all
    select 7, i.oid, 0, format('comment on index analytics.%I is %L', c.relname, d.description)
    from indexes as i
      join pg_class as c on c.oid = i.oid
      join pg_description as d on d.classoid = 'pg_class'::regclass and d.objoid = i.oid
    union all
    -- Whoever else was let in.
    select
      8, m.oid, 0,
      format(
        'grant %s on %s to %s%s', x.privilege_type, m.name,
        case when x.grantee = 0 then 'public' else x.grantee::regrole::text end,
        case when x.is_grantable then ' with grant option' else '' end
      )
    from made as m
      join pg_class as c on c.oid = m.oid
      cross join lateral aclexplode(c.relacl) as x
    where x.grantee <> c.relowner
    union all
    select
      8, m.oid, a.attnum,
      format(
        'grant %s (%I) on %s to %s%s', x.privilege_type, a.attname, m.name,
        case when x.grantee = 0 then 'public' else x.grantee::regrole::text end,
        case when x.is_grantable then ' with grant option' else '' end
      )
    from made as m
      join pg_attribute as a on a.attrelid = m.oid and not a.attisdropped
      cross join lateral aclexplode(a.attacl) as x
    union all
    select
      9, m.oid, 0,
      format(
        'alter %s %s owner to %s', case m.relkind when 'm' then 'materialized view' else 'view' end, m.name,
        c.relowner::regrole
      )
    from made as m
      join pg_class as c on c.oid = m.oid
  )

  select array_agg(s.statement order by s.step, s.oid, s.place) into strict v_statements
  from steps as s;

  foreach v_statement in array v_statements loop
    execute v_statement;
  end loop;

  if exists (
    select from pg_matviews as m
      join analytics.views as v on v.name = m.matviewname
    where m.schemaname = 'analytics' and m.definition not like '%now() AS as_of%'
  ) then
    raise exception 'a materialized view of analytics still has the clock for its as_of';
  end if;
end
$do$;

-- What it warns of was said when the roles were first granted.
set local client_min_messages = error;
select chatter.grant_roles();
reset client_min_messages;
