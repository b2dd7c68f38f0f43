-- The attempts from an IPv6 address count for its /64: whoever has one address there has all of
-- them, and had as many tries. (A block of a single IPv6 address that holds now ends here.)
create function chatter.counted_address(p_ip_address inet) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when family(p_ip_address) = 6 and not p_ip_address <<= '::ffff:0:0/96'
      then network(set_masklen(p_ip_address, 64))::text
    else host(p_ip_address)
  end
$$;

create or replace function chatter.block_lifted_at(p_subject text, p_value text) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select max(e.created_at)
  from chatter.security_events as e
  where e.event_type = 'block_lifted'
    and (
      -- Two looks into an index; who is no address is never cast to one.
      e.ip_address between case when p_subject = 'ip_address' then p_value::inet end
        and case when p_subject = 'ip_address' then set_masklen(broadcast(p_value::inet), -1) end
      or e.user_id = case when p_subject = 'user_id' then p_value::uuid end
    )
$$;

create or replace function chatter.tg_security_events__alert() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
  v_since timestamptz;
  v_events bigint;
begin
  for v in
    -- In one order for all writers, or two that touch several subjects would deadlock.
    select r.*, s.value, max(s.correlation_id) as correlation_id
    from chatter.security_rules as r
      join (
        select
          n.event_type, 'ip_address' as subject, chatter.counted_address(n.ip_address) as value,
          n.correlation_id
        from new_rows as n
        union all
        select n.event_type, 'user_id', n.user_id::text, n.correlation_id
        from new_rows as n
        union all
        select n.event_type, 'api_key_id', n.details ->> 'api_key_id', n.correlation_id
        from new_rows as n
      ) as s on s.event_type = r.event_type and s.subject = r.subject
    where r.enabled and s.value is not null
    group by r.name, s.value
    order by r.name, s.value
  loop
    perform pg_catalog.pg_advisory_xact_lock(
      pg_catalog.hashtextextended('chatter alert ' || v.name || ' ' || v.value, 0)
    );

    -- Statements of their own, so that they see what was committed while we waited.
    v_since := greatest(
      chatter.clock() - v.period, chatter.block_lifted_at(v.subject, v.value)
    );
    if exists (
      select from chatter.alerts as a
      where a.subject_value = v.value
        and a.rule_name = v.name
        and a.created_at > v_since
    ) then
      continue;
    end if;

    -- One branch per subject, so that each count is a look into an index.
    if v.subject = 'ip_address' then
      select count(*) into v_events
      from chatter.security_events as e
      where e.ip_address between v.value::inet and set_masklen(broadcast(v.value::inet), -1)
        and e.event_type = v.event_type
        and e.created_at > v_since;
    elsif v.subject = 'user_id' then
      select count(*) into v_events
      from chatter.security_events as e
      where e.user_id = v.value::uuid
        and e.event_type = v.event_type
        and e.created_at > v_since;
    else
      select count(*) into v_events
      from chatter.security_events as e
      where e.details ? 'api_key_id'
        and e.details ->> 'api_key_id' = v.value
        and e.event_type = v.event_type
        and e.created_at > v_since;
    end if;

    if v_events >= v.threshold then
      insert into chatter.alerts (
        rule_name, subject, subject_value, severity, events, correlation_id, blocked_until
      )
      values (
        v.name, v.subject, v.value, v.severity, v_events, v.correlation_id,
        chatter.clock() + v.block_for
      );
    end if;
  end loop;
  return null;
end
$$;

create or replace function chatter.blocked_until(p_ip_address inet, p_user_id uuid) returns timestamptz
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select max(a.blocked_until)
  from chatter.alerts as a
  where (
      (a.subject = 'ip_address' and a.subject_value = chatter.counted_address(p_ip_address))
      or (a.subject = 'user_id' and a.subject_value = p_user_id::text)
    )
    and a.blocked_until > chatter.clock()
    and a.created_at > coalesce(chatter.block_lifted_at(a.subject, a.subject_value), '-infinity')
    and (
      nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null
      or (a.subject = 'user_id' and a.subject_value = pg_catalog.current_setting('chatter.user_id', true))
    )
$$;

comment on column chatter.alerts.subject_value is
  'The address (of IPv6 its /64), user or key, as text.';
comment on function chatter.counted_address(inet) is
  'What attempts from an address are counted by: of IPv6 its /64.';

-- Nobody calls it but the functions of the owner.
revoke all on function chatter.counted_address(inet) from public;
