-- All tables and views of the schemas, before a migration changes the first: one by one it would meet
-- who holds what it comes to next and waits for what it has. No order of ours is that of everybody,
-- so who can't have all lets go of all, before a deadlock is looked for (deadlock_timeout), and tries
-- again. Views too: a reader has them before their tables. No LOCK takes a materialized view, and of
-- a view it asks rights of its owner, so both are given to the owner that they have. And so the views that
-- views_aside.sql puts aside.
do $$
declare
  v_tables text := (
    select pg_catalog.string_agg(pg_catalog.format('%I.%I', t.schemaname, t.tablename), ', ')
    from pg_catalog.pg_tables as t
    where t.schemaname in ('chatter', 'analytics')
  );
  v_views text[] := (
    select
      pg_catalog.array_agg(
        pg_catalog.format(
          'alter %s %I.%I owner to %I', case c.relkind when 'v' then 'view' else 'materialized view' end,
          n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner)
        )
        order by c.oid
      )
    from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('m', 'v')
      and pg_catalog.pg_has_role(c.relowner, 'usage')
      and (
        n.nspname in ('chatter', 'analytics')
        or c.oid in (
          select w.ev_class
          from pg_catalog.pg_rewrite as w
            join pg_catalog.pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
            join pg_catalog.pg_class as u on d.refclassid = 'pg_class'::regclass and u.oid = d.refobjid
            join pg_catalog.pg_namespace as o on o.oid = u.relnamespace
          where c.relkind = 'v' and u.relkind in ('m', 'v') and o.nspname in ('chatter', 'analytics')
        )
      )
  );
  v_view text;
  v_deadline timestamptz := pg_catalog.clock_timestamp() + interval '1 minute';
  v_before text := pg_catalog.current_setting('lock_timeout');
  v_patience integer := 50;
begin
  loop
    begin
      perform pg_catalog.set_config('lock_timeout', v_patience || 'ms', true);
      execute 'lock table ' || v_tables || ' in access exclusive mode';
      foreach v_view in array coalesce(v_views, '{}') loop
        execute v_view;
      end loop;
      exit;
    exception
      when lock_not_available or deadlock_detected then
        if pg_catalog.clock_timestamp() > v_deadline then
          raise exception 'other transactions have used its tables for a minute'
            using errcode = 'lock_not_available',
            hint = 'pg_stat_activity tells which; migrate when they have ended.';
        end if;
        v_patience := least(2 * v_patience, 800);
        perform pg_catalog.pg_sleep(pg_catalog.random() / 5);
    end;
  end loop;
  perform pg_catalog.set_config('lock_timeout', v_before, true);
end
$$;
