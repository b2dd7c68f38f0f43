-- Views that were refreshed by a clock that was ahead waited for the same time to come again.
create or replace function analytics.refresh(p_force boolean default false) returns setof text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
as $$
declare
  v_view record;
  v_begin timestamptz;
  v_names text[] := '{}';
  v_times double precision[] := '{}';
begin
  -- Two refreshes of one view would wait for each other: one at a time for all.
  if not pg_catalog.pg_try_advisory_xact_lock(chatter.bell() + 2) then
    return;
  end if;
  for v_view in
    select v.name, m.ispopulated
    from analytics.views as v
      join pg_catalog.pg_matviews as m on m.schemaname = 'analytics' and m.matviewname = v.name
      cross join analytics.state as s
    where p_force
      or v.refreshed_at is null
      or not m.ispopulated
      -- The clock was ahead, and has been set back.
      or v.refreshed_at > chatter.clock()
      or (
        -- Large ones less often: a refresh may take a tenth of the time at most.
        v.refreshed_at + greatest(v.refresh_every, coalesce(v.refresh_ms, 0) * interval '10 milliseconds')
          <= chatter.clock()
        -- Of the beginning of the refresh: what was folded meanwhile is not in it.
        and v.refreshed_at <= s.folded_at
      )
    order by v.name
  loop
    v_begin := pg_catalog.clock_timestamp();
    if v_view.ispopulated then
      execute pg_catalog.format('refresh materialized view concurrently analytics.%I', v_view.name);
    else
      execute pg_catalog.format('refresh materialized view analytics.%I', v_view.name);
    end if;
    v_names := v_names || v_view.name;
    v_times := v_times || extract(epoch from pg_catalog.clock_timestamp() - v_begin) * 1000;
  end loop;

  if v_names <> '{}' then
    update analytics.views as v
    set refreshed_at = pg_catalog.now(), refresh_ms = d.ms
    from unnest(v_names, v_times) as d (name, ms)
    where v.name = d.name;
  end if;
  return query select unnest(v_names);
end
$$;
