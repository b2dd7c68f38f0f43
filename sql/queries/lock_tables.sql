-- All tables of the schemas, before a migration changes the first: one by one it would meet
-- writers that hold what it comes to next and wait for what it has. No order of ours is that of
-- every writer, so who can't have all lets go of all, before a deadlock is looked for
-- (deadlock_timeout), and tries again.
do $$
declare
  v_tables text := (
    select pg_catalog.string_agg(pg_catalog.format('%I.%I', t.schemaname, t.tablename), ', ')
    from pg_catalog.pg_tables as t
    where t.schemaname in ('chatter', 'analytics')
  );
  v_deadline timestamptz := pg_catalog.clock_timestamp() + interval '1 minute';
  v_before text := pg_catalog.current_setting('lock_timeout');
  v_patience integer := 50;
begin
  loop
    begin
      perform pg_catalog.set_config('lock_timeout', v_patience || 'ms', true);
      execute 'lock table ' || v_tables || ' in access exclusive mode';
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
