-- Security: what happened at the door, and who is kept out for a while.
--
-- Applications insert into security_events and nothing else. A trigger counts them
-- by the rules below; the event that reaches a threshold raises an alert, which is
-- one row and, where the rule says so, a block. Rules, alerts and blocks live
-- here and not in a process, so that ten servers count like one.

create table chatter.security_events (
  id uuid not null default chatter.uuid7(),
  event_type text not null,
  severity text not null default 'low',
  user_id uuid,
  ip_address inet,
  user_agent text,
  correlation_id text,
  details jsonb not null default '{}',
  created_at timestamptz not null default chatter.clock(),
  constraint security_events_pkey primary key (id),
  constraint security_events_user_id_fkey
    foreign key (user_id) references chatter.users (id) on delete restrict,
  -- A pattern and not a list: a new kind of event needs no migration.
  constraint security_events_event_type_check check (event_type ~ '^[a-z][a-z0-9_]{1,62}$'),
  constraint security_events_severity_check
    check (severity in ('low', 'medium', 'high', 'critical')),
  constraint security_events_user_agent_check check (length(user_agent) <= 1000),
  constraint security_events_correlation_id_check check (length(correlation_id) between 1 and 500),
  constraint security_events_details_check
    check (jsonb_typeof(details) = 'object' and not jsonb_path_exists(details, 'strict $.**{100}'))
);

-- What a rule counts: one kind of event of one subject since a moment.
create index security_events_ip_address_event_type_created_at_idx
  on chatter.security_events (ip_address, event_type, created_at)
  where ip_address is not null;
create index security_events_user_id_event_type_created_at_idx
  on chatter.security_events (user_id, event_type, created_at)
  where user_id is not null;
create index security_events_api_key_id_event_type_created_at_idx
  on chatter.security_events ((details ->> 'api_key_id'), event_type, created_at)
  where details ? 'api_key_id';
-- What retention takes away.
create index security_events_created_at_idx on chatter.security_events (created_at);
-- The story of a request.
create index security_events_correlation_id_idx
  on chatter.security_events (correlation_id)
  where correlation_id is not null;

create table chatter.security_rules (
  name text not null,
  event_type text not null,
  subject text not null,
  threshold bigint not null,
  period interval not null,
  severity text not null,
  block_for interval,
  enabled boolean not null default true,
  constraint security_rules_pkey primary key (name),
  constraint security_rules_name_check check (name ~ '^[a-z][a-z0-9_]{1,62}$'),
  constraint security_rules_event_type_check check (event_type ~ '^[a-z][a-z0-9_]{1,62}$'),
  constraint security_rules_subject_check check (subject in ('ip_address', 'user_id', 'api_key_id')),
  constraint security_rules_threshold_check check (threshold > 0),
  constraint security_rules_period_check check (period > interval '0'),
  constraint security_rules_severity_check
    check (severity in ('low', 'medium', 'high', 'critical')),
  -- A key is revoked, not blocked.
  constraint security_rules_block_for_check
    check (block_for is null or (block_for > interval '0' and subject <> 'api_key_id'))
);

insert into chatter.security_rules (name, event_type, subject, threshold, period, severity, block_for)
values
  ('failed_logins_per_address', 'login_failure', 'ip_address', 10, '15 minutes', 'high', '15 minutes'),
  ('failed_logins_per_user', 'login_failure', 'user_id', 5, '15 minutes', 'high', '15 minutes'),
  ('password_resets_per_user', 'password_reset_requested', 'user_id', 5, '1 hour', 'medium', null),
  ('registrations_per_address', 'account_created', 'ip_address', 3, '1 hour', 'medium', null),
  ('uses_per_api_key', 'api_key_used', 'api_key_id', 100, '1 hour', 'medium', null),
  ('rate_limits_per_address', 'rate_limit_exceeded', 'ip_address', 10, '15 minutes', 'medium', null);

create table chatter.alerts (
  id uuid not null default chatter.uuid7(),
  rule_name text not null,
  subject text not null,
  subject_value text not null,
  severity text not null,
  events bigint not null,
  correlation_id text,
  blocked_until timestamptz,
  created_at timestamptz not null default chatter.clock(),
  constraint alerts_pkey primary key (id),
  constraint alerts_rule_name_fkey
    foreign key (rule_name) references chatter.security_rules (name) on delete restrict,
  constraint alerts_subject_check check (subject in ('ip_address', 'user_id', 'api_key_id')),
  constraint alerts_severity_check check (severity in ('low', 'medium', 'high', 'critical'))
);

-- Whether a subject has its alert in this period, and whether it is blocked.
create index alerts_subject_value_created_at_idx on chatter.alerts (subject_value, created_at);
-- What retention takes away.
create index alerts_created_at_idx on chatter.alerts (created_at);
-- For the foreign key.
create index alerts_rule_name_idx on chatter.alerts (rule_name);

-- What the attempts from an address are counted by: for IPv6 its /64, of which whoever has one
-- address has all. An IPv4 address that comes in the clothes of IPv6 (::ffff:0:0/96) is itself:
-- all of them are of one /64.
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

-- When the block of a subject was lifted last: an event like any other, since nothing here is
-- changed. What came before it counts no more.
create function chatter.block_lifted_at(p_subject text, p_value text) returns timestamptz
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

-- Whose turn it is to count. No advisory lock: whoever may connect could take that, and who
-- fails to sign in would wait for ever. Unlogged: no row is ever there.
create unlogged table chatter.alert_turns (
  id bigint not null,
  constraint alert_turns_pkey primary key (id)
);

-- A rule counts over the period that ends now, so attempts can't be spread over two
-- windows of a clock. The first event at or over the threshold raises an alert;
-- further ones within the period after it raise none. Writers of one rule and subject take
-- turns: each counts what the others have committed, and of many that reach the threshold
-- together one raises.
create function chatter.tg_security_events__alert() returns trigger
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
    select
      r.*, s.value, max(s.correlation_id) as correlation_id,
      hashtextextended(r.name || ' ' || s.value, 0) as turn
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
      -- Nothing to count, and no turn to wait for, while an alert stands.
      and not exists (
        select from chatter.alerts as a
        where a.subject_value = s.value
          and a.rule_name = r.name
          and a.created_at
            > greatest(chatter.clock() - r.period, chatter.block_lifted_at(s.subject, s.value))
      )
    group by r.name, s.value
    order by r.name, s.value
  loop
    -- A row that another transaction has made, even if it has deleted it again, keeps us
    -- waiting for that one's end: its key is unique.
    insert into chatter.alert_turns (id) values (v.turn);
    delete from chatter.alert_turns as t where t.id = v.turn;

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

create trigger _200_alert
  after insert on chatter.security_events
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_security_events__alert();

-- Both are events for whoever watches: what happened at the door, and each alert.
create function chatter.tg_security__events() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_table_name = 'security_events' then
    insert into chatter.events (
      event_type, category, user_id, subject_id, correlation_id, payload
    )
    select
      n.event_type, 'security', n.user_id, n.id, n.correlation_id,
      -- No address: it is personal, and whoever may see it finds it by the id.
      pg_catalog.jsonb_build_object('v', 1, 'security_event', n.id, 'severity', n.severity)
    from new_rows as n;
  else
    insert into chatter.events (event_type, category, subject_id, correlation_id, payload)
    select
      'alert_raised', 'alert', n.id, n.correlation_id,
      pg_catalog.jsonb_build_object(
        'v', 1, 'alert', n.id, 'rule', n.rule_name, 'severity', n.severity, 'subject', n.subject,
        'events', n.events, 'blocked_until', n.blocked_until
      )
    from new_rows as n;
  end if;
  if found then
    perform chatter.ring_bell();
  end if;
  return null;
end
$$;

create trigger _300_events_insert
  after insert on chatter.security_events
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_security__events();

create trigger _300_events_insert
  after insert on chatter.alerts
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_security__events();

comment on function chatter.tg_security__events() is 'Writes security events and alert_raised into the outbox.';
comment on trigger _300_events_insert on chatter.security_events is 'Writes the event of its own name.';
comment on trigger _300_events_insert on chatter.alerts is 'Writes alert_raised.';

-- Until when an address or a user is kept out; NULL if neither is. Applications ask
-- before they look at a password. Who acts for a user (400) is told of that user alone.
create function chatter.blocked_until(p_ip_address inet, p_user_id uuid) returns timestamptz
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

-- Append-only. Retention is the one way out, and only for whole ends of the record.
create function chatter.tg_refuse_change() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' and pg_catalog.current_setting('chatter.maintenance', true) = 'on' then
    return null;
  end if;
  raise exception 'chatter.% is append-only: % is refused', tg_table_name, tg_op
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      hint = 'A record that can be changed proves nothing. Old rows go by '
        'chatter.prune_security(timestamptz).';
end
$$;

create trigger _000_refuse_change
  before update or delete or truncate on chatter.security_events
  for each statement execute function chatter.tg_refuse_change();
create trigger _000_refuse_change
  before update or delete or truncate on chatter.alerts
  for each statement execute function chatter.tg_refuse_change();

-- Retention: addresses and browsers are personal data and aren't kept for ever.
-- Returns the number of events and alerts removed. A block that still holds stays.
create function chatter.prune_security(p_before timestamptz) returns bigint
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

comment on table chatter.security_events is
  'What happened at the door: sign-ins, keys, refusals. Append-only; alerts follow by trigger.';
comment on column chatter.security_events.id is 'UUIDv7.';
comment on column chatter.security_events.event_type is
  'Such as login_success, login_failure, login_blocked, api_key_created, rate_limit_exceeded.';
comment on column chatter.security_events.severity is 'low, medium, high or critical.';
comment on column chatter.security_events.user_id is 'Whom it concerns; NULL when nobody is known.';
comment on column chatter.security_events.ip_address is 'Where the request came from; NULL when not known.';
comment on column chatter.security_events.user_agent is 'What the client called itself, up to 1,000 characters.';
comment on column chatter.security_events.correlation_id is 'One id through request, run, calls and events.';
comment on column chatter.security_events.details is 'JSON object with ids and counts; never a password, token or text.';
comment on column chatter.security_events.created_at is 'When it happened.';
comment on index chatter.security_events_ip_address_event_type_created_at_idx is 'What a rule counts of an address.';
comment on index chatter.security_events_user_id_event_type_created_at_idx is 'What a rule counts of a user.';
comment on index chatter.security_events_api_key_id_event_type_created_at_idx is 'What a rule counts of an API key.';
comment on index chatter.security_events_created_at_idx is 'What retention takes away.';
comment on index chatter.security_events_correlation_id_idx is 'The story of a request.';
comment on table chatter.security_rules is
  'Thresholds: so many events of a kind by one subject within a period raise an alert.';
comment on column chatter.security_rules.name is 'The rule, in words with underscores.';
comment on column chatter.security_rules.event_type is 'The kind of security event that is counted.';
comment on column chatter.security_rules.subject is 'By what is counted: ip_address, user_id or api_key_id (in details).';
comment on column chatter.security_rules.threshold is 'The number of events that raises the alert.';
comment on column chatter.security_rules.period is 'How far back is counted, and how long one alert stands for all.';
comment on column chatter.security_rules.severity is 'Severity of the alert.';
comment on column chatter.security_rules.block_for is 'How long the subject is kept out; NULL: not at all.';
comment on column chatter.security_rules.enabled is 'Whether the rule counts.';
comment on table chatter.alerts is 'Thresholds that were reached, once per rule, subject and period. Written by trigger.';
comment on column chatter.alerts.id is 'UUIDv7.';
comment on column chatter.alerts.rule_name is 'The rule whose threshold was reached.';
comment on column chatter.alerts.subject is 'What subject_value is: ip_address, user_id or api_key_id.';
comment on column chatter.alerts.subject_value is
  'The address (of IPv6 its /64), user or key, as text.';
comment on column chatter.alerts.severity is 'The rule''s severity at that time.';
comment on column chatter.alerts.events is 'How many events were counted.';
comment on column chatter.alerts.correlation_id is 'Of the event that reached the threshold.';
comment on column chatter.alerts.blocked_until is 'Until when the subject is kept out; NULL if it isn''t.';
comment on column chatter.alerts.created_at is 'When the threshold was reached.';
comment on index chatter.alerts_subject_value_created_at_idx is 'The alerts and blocks of a subject.';
comment on index chatter.alerts_created_at_idx is 'What retention takes away.';
comment on index chatter.alerts_rule_name_idx is 'The alerts of a rule; the foreign key.';
comment on table chatter.alert_turns is
  'Empty. A row that comes and goes lets writers of one rule and subject take turns.';
comment on column chatter.alert_turns.id is 'A hash of the rule and the subject.';
comment on function chatter.tg_security_events__alert() is 'Raises an alert when new events reach a rule''s threshold.';
comment on trigger _200_alert on chatter.security_events is 'Raises an alert when new events reach a rule''s threshold.';
comment on function chatter.counted_address(inet) is
  'What attempts from an address are counted by: of IPv6 its /64.';
comment on function chatter.block_lifted_at(text, text) is
  'When the block of an address or a user was lifted last; NULL if never.';
comment on function chatter.blocked_until(inet, uuid) is
  'Until when an address or a user is kept out; NULL if neither is.';
comment on function chatter.tg_refuse_change() is 'Refuses UPDATE, DELETE and TRUNCATE of an append-only table.';
comment on trigger _000_refuse_change on chatter.security_events is 'Refuses UPDATE, DELETE and TRUNCATE.';
comment on trigger _000_refuse_change on chatter.alerts is 'Refuses UPDATE, DELETE and TRUNCATE.';
comment on function chatter.prune_security(timestamptz) is
  'Removes security events, alerts and sessions that were over before a time at least a day ago; returns how many.';
