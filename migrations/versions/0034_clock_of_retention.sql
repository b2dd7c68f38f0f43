-- Retention goes by the time it is, whatever clock the caller has set: who keeps the books small
-- could remove what happened today.
create or replace function chatter.prune_events(p_before timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_setting text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
  v_bound xid8;
  v_end xid8;
  v_removed bigint;
begin
  -- A caller may stop the clock of its session, and not put it forward to remove what is new.
  if p_before is null or p_before > least(chatter.clock(), clock_timestamp()) then
    raise exception 'chatter.prune_events() removes what is past; it was asked for all before %', p_before
      using errcode = 'invalid_parameter_value';
  end if;

  v_bound := pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot());
  select least(v_bound, min(e.xact_id)) into v_bound
  from chatter.events as e
  where e.created_at >= p_before;

  -- No further than what is removed: a reader who had it all has missed nothing.
  select max(e.xact_id) into v_end
  from chatter.events as e
  where e.xact_id < v_bound;

  perform pg_catalog.set_config('chatter.maintenance', 'on', true);
  delete from chatter.events as e where e.xact_id < v_bound;
  get diagnostics v_removed = row_count;
  perform pg_catalog.set_config('chatter.maintenance', v_setting, true);

  if v_removed > 0 then
    update chatter.event_stream as s
    set pruned_before = greatest(s.pruned_before, chatter.next_xact_id(v_end));
  end if;
  return v_removed;
end
$$;

create or replace function chatter.prune_security(p_before timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_before text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
  -- A caller may stop the clock of its session, and not put it forward to remove what is new.
  v_now timestamptz := least(chatter.clock(), clock_timestamp());
  v_events bigint;
  v_alerts bigint;
  v_sessions bigint;
begin
  if p_before is null or p_before > v_now - interval '1 day' then
    raise exception 'chatter.prune_security() keeps at least the last day; it was asked to remove all before %',
      p_before
      using errcode = 'invalid_parameter_value', hint = 'The rules count over up to a day back.';
  end if;
  perform pg_catalog.set_config('chatter.maintenance', 'on', true);
  delete from chatter.security_events as e where e.created_at < p_before;
  get diagnostics v_events = row_count;
  delete from chatter.alerts as a
  where a.created_at < p_before
    and (a.blocked_until is null or a.blocked_until < v_now);
  get diagnostics v_alerts = row_count;
  perform pg_catalog.set_config('chatter.maintenance', v_before, true);
  -- With addresses and browsers of people, which aren't kept for ever.
  delete from chatter.browser_sessions as b where least(b.expires_at, b.revoked_at) < p_before;
  get diagnostics v_sessions = row_count;
  return v_events + v_alerts + v_sessions;
end
$$;
