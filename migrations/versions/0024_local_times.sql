-- Words like today are of the time zone that is asked for, wherever the session is; and
-- charts over empty books don't step through every day since 1970.
create function analytics.local_time(p_time text, p_time_zone text) returns timestamp
language sql stable
as $$
  select
    case lower(p_time)
      when 'now' then now() at time zone p_time_zone
      when 'today' then date_trunc('day', now() at time zone p_time_zone)
      when 'yesterday' then date_trunc('day', now() at time zone p_time_zone) - interval '1 day'
      when 'tomorrow' then date_trunc('day', now() at time zone p_time_zone) + interval '1 day'
      else p_time::timestamp
    end
$$;

comment on function analytics.local_time(text, text) is
  'A local time of a time zone: now, today, yesterday, tomorrow there, or a time as it is written.';


create or replace function analytics.grain(p_since timestamptz, p_until timestamptz, p_time_zone text) returns text
language sql stable
as $$
  select
    case when bool_and(b.at = date_trunc('hour', b.at, 'UTC')) then 'hour' else 'quarter' end
  from (
    select p_since as at
    union all
    select p_until
    union all
    select midnight at time zone p_time_zone
    from (select min(u.day) as first, max(u.day) as last from analytics.usage_day as u) as k
      cross join lateral generate_series(
        greatest(k.first, (p_since at time zone 'UTC')::date)::timestamp,
        least(k.last + 1, (p_until at time zone 'UTC')::date + 1)::timestamp,
        interval '1 day'
      ) as midnight
    -- Of empty books they would be all midnights of the period.
    where k.first is not null
  ) as b
$$;

create or replace function analytics.usage_steps(
  p_since timestamptz, p_until timestamptz, p_time_zone text, p_step text
)
returns table (
  bucket timestamptz, workflow_name text, provider text, model text, kind text, messages bigint, turns bigint, calls
  bigint, failed_calls bigint, prompt_tokens bigint, completion_tokens bigint, total_tokens bigint,
  cache_read_tokens bigint, cache_write_tokens bigint, reasoning_tokens bigint, cost numeric,
  unpriced_calls bigint, unknown_usage bigint
)
language sql stable
as $$
  with g as materialized (
    select
      case when p_step = 'day' then 'day' else analytics.grain(p_since, p_until, p_time_zone) end as grain
  ),

  period as materialized (
    select
      -- Midnights (UTC): of the first whole day, and after the last one.
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first,
      date_bin('1 day', p_until, '2000-01-01 00:00:00+00') as last
    from g
    where g.grain = 'day'
  ),

  -- What is read by quarters: without whole days all of it, or nothing.
  edges as materialized (
    select
      -- If no whole day lies between, the first edge is all there is.
      least(p_until, greatest(p.first, p_since)) as first_until,
      greatest(p.last, least(p_until, greatest(p.first, p_since))) as last_since
    from period as p
    union all
    select p_until, p_until
    from g
    where g.grain = 'quarter'
  ),

  -- Whole days (UTC) in which there may be anything.
  days as materialized (
    select
      d.day, c.starts, c.ends, c.local_start,
      -- 1 if the clocks are changed; a number, because the planner takes half of the days for true.
      (c.local_end - c.local_start <> interval '1 day')::integer as clocks_change
    from period as p
      cross join (select min(u.day) as first, max(u.day) as last from analytics.usage_day as u) as k
      cross join lateral (
        select
          generate_series(
            greatest((p.first at time zone 'UTC')::date, k.first)::timestamp,
            least((p.last at time zone 'UTC')::date - 1, k.last)::timestamp,
            interval '1 day'
          )::date as day
      ) as d
      cross join lateral (
        select
          x.starts, x.ends,
          x.starts at time zone p_time_zone as local_start, x.ends at time zone p_time_zone as local_end
        from (
          select d.day::timestamp at time zone 'UTC' as starts, (d.day + 1)::timestamp at time zone 'UTC' as ends
        ) as x
      ) as c
    where k.first is not null
  ),

  -- Where a day counts, and what is moved from there to where: nothing, if the zone's midnight
  -- is the day's end.
  whole_days as materialized (
    select
      d.day,
      case when m.midnight - d.starts <= interval '12 hours' then m.midnight else d.starts end as bucket,
      case when m.midnight - d.starts <= interval '12 hours' then d.starts else m.midnight end as moved_since,
      case when m.midnight - d.starts <= interval '12 hours' then m.midnight else d.ends end as moved_until
    from days as d
      cross join lateral (
        select d.starts + (date_trunc('day', d.local_start) + interval '1 day' - d.local_start) as midnight
      ) as m
    where d.clocks_change = 0
  ),

  -- The moved part begins or ends at a midnight (UTC), and at one of the zone, which may be
  -- within an hour: quarters up to the next whole hour.
  parts as materialized (
    select
      c.bucket, c.moved_since, c.moved_until,
      date_bin('1 hour', c.moved_since + interval '1 hour' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first_hour,
      date_bin('1 hour', c.moved_until, '2000-01-01 00:00:00+00') as last_hour
    from whole_days as c
  ),

  -- Twelve hours and four quarters of a day at most. Said as numbers, of which the planner knows how
  -- many there are.
  hours as materialized (
    select h.hour, t.bucket, t.sign
    from parts as p
      cross join generate_series(0, 11) as n
      cross join lateral (values (p.first_hour + n * interval '1 hour')) as h (hour)
      cross join lateral (values (p.bucket, -1), (h.hour, 1)) as t (bucket, sign)
    where h.hour < p.last_hour
  ),

  quarters as materialized (
    select q.quarter, t.bucket, t.sign
    from parts as p
      cross join lateral (
        values (
            analytics.quarter_hour(p.moved_since + interval '15 minutes' - interval '1 microsecond'),
            least(p.first_hour, p.moved_until)
          ),
          (greatest(p.last_hour, p.first_hour), p.moved_until)
      ) as r (since, until)
      cross join generate_series(0, 3) as n
      cross join lateral (values (r.since + n * interval '15 minutes')) as q (quarter)
      cross join lateral (values (p.bucket, -1), (q.quarter, 1)) as t (bucket, sign)
    where q.quarter < r.until
    union all
    select q.quarter, q.quarter, 1
    from days as d
      cross join generate_series(0, 95) as n
      cross join lateral (values (d.starts + n * interval '15 minutes')) as q (quarter)
    where d.clocks_change = 1
  )

  select
    c.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from whole_days as c
    join analytics.usage_day as u on u.day = c.day
  union all
  select
    t.bucket, u.workflow_name, u.provider, u.model, u.kind,
    t.sign * u.messages, t.sign * u.turns, t.sign * u.calls, t.sign * u.failed_calls,
    t.sign * u.prompt_tokens, t.sign * u.completion_tokens, t.sign * u.total_tokens,
    t.sign * u.cache_read_tokens, t.sign * u.cache_write_tokens, t.sign * u.reasoning_tokens,
    t.sign * u.cost, t.sign * u.unpriced_calls, t.sign * u.unknown_usage
  from hours as t
    -- With an offset: looked up one by one, never by reading all of them.
    cross join lateral (select h.* from analytics.usage_hourly as h where h.hour = t.hour offset 0) as u
  union all
  select
    t.bucket, u.workflow_name, u.provider, u.model, u.kind,
    t.sign * u.messages, t.sign * u.turns, t.sign * u.calls, t.sign * u.failed_calls,
    t.sign * u.prompt_tokens, t.sign * u.completion_tokens, t.sign * u.total_tokens,
    t.sign * u.cache_read_tokens, t.sign * u.cache_write_tokens, t.sign * u.reasoning_tokens,
    t.sign * u.cost, t.sign * u.unpriced_calls, t.sign * u.unknown_usage
  from quarters as t
    cross join lateral (select q.* from analytics.usage_15min as q where q.bucket = t.quarter offset 0) as u
  union all
  select
    u.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.usage_15min as u
  where u.bucket >= p_since and u.bucket < (select e.first_until from edges as e)
  union all
  select
    u.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.usage_15min as u
  where u.bucket >= (select e.last_since from edges as e) and u.bucket < p_until
  union all
  select
    u.hour, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.usage_hourly as u
  where (select g.grain from g) = 'hour' and u.hour >= p_since and u.hour < p_until
  union all
  select
    u.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.deltas as u
  where u.bucket >= p_since and u.bucket < p_until
$$;

-- With local_time.
create or replace function chatter.grant_roles() returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_role text;
begin
  -- Postgres lets everybody execute new functions; here nobody does unless named.
  revoke all on all functions in schema chatter from public;

  if pg_catalog.to_regrole('chatter_app') is not null then
    grant usage on schema chatter to chatter_app;
    grant execute on function
      chatter.clock(), chatter.uuid7(), chatter.lock_conversations(uuid[]),
      chatter.erase_conversation(uuid), chatter.acting_user(), chatter.act_for(uuid),
      chatter.may_be_app(), chatter.owns_conversation(uuid), chatter.owns_execution(uuid),
      chatter.owns_message(uuid)
    to chatter_app;
    perform chatter.create_own_policies();
    -- So that a server that signs in as the owner can act for its users.
    if not chatter.may_be_app() then
      begin
        execute pg_catalog.format('grant chatter_app to %I', current_user);
      exception
        when insufficient_privilege then
          raise warning '% may not act for users: it is no member of chatter_app', current_user
            using hint = pg_catalog.format('As an administrator: grant chatter_app to %I;', current_user);
      end;
    end if;
    grant select on
      chatter.users, chatter.conversations, chatter.workflow_executions, chatter.messages,
      chatter.tool_calls
    to chatter_app;
    grant insert (id, external_id, role, metadata, created_at) on chatter.users to chatter_app;
    grant update (metadata) on chatter.users to chatter_app;
    grant insert (id, external_id, user_id, title, status, metadata, created_at)
      on chatter.conversations to chatter_app;
    grant update (title, status, metadata) on chatter.conversations to chatter_app;
    grant insert (
      id, conversation_id, user_id, workflow_name, status, correlation_id, started_at, finished_at,
      error_type, error_message, metadata, recorder_id
    ) on chatter.workflow_executions to chatter_app;
    grant update (status, finished_at, error_type, error_message, metadata, recorder_id)
      on chatter.workflow_executions to chatter_app;
    grant select, insert (id, host, process_id), update (heartbeat_at, stopped_at)
      on chatter.recorders to chatter_app;
    grant insert (
      id, conversation_id, execution_id, role, kind, content, tool_calls, tool_call_id,
      provider_used, model_used, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, cost_source, usage_status,
      usage, response_time_ms, time_to_first_token_ms, finish_reason, status, error_type,
      error_message, correlation_id, metadata, created_at
    ) on chatter.messages to chatter_app;
    grant update (
      conversation_id, execution_id, role, kind, content, tool_calls, tool_call_id,
      provider_used, model_used, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, cost_source, usage_status,
      usage, response_time_ms, time_to_first_token_ms, finish_reason, status, error_type,
      error_message, correlation_id, metadata
    ) on chatter.messages to chatter_app;
    grant insert (
      id, execution_id, message_id, tool_call_id, tool_name, status, started_at, duration_ms,
      error_type, error_message
    ) on chatter.tool_calls to chatter_app;
    grant update (status, started_at, duration_ms, error_type, error_message)
      on chatter.tool_calls to chatter_app;
  end if;

  -- The app prices what it records; prices are the owner's.
  if pg_catalog.to_regrole('chatter_app') is not null then
    grant select on chatter.prices to chatter_app;
    grant execute on function
      chatter.price_at(text, text, timestamptz),
      chatter.cost_by(chatter.prices, bigint, bigint, bigint, bigint),
      chatter.price_details(chatter.prices)
    to chatter_app;
  end if;
  if pg_catalog.to_regrole('chatter_reader') is not null then
    grant select on chatter.prices, chatter.repricings, chatter.repriced_messages to chatter_reader;
  end if;

  -- The app follows the events; it writes none.
  if pg_catalog.to_regrole('chatter_app') is not null then
    grant select on chatter.events to chatter_app;
    grant execute on function
      chatter.bell(), chatter.events_now(), chatter.events_oldest(), chatter.parse_position(text),
      chatter.events_after(text, integer, uuid, uuid, uuid, text[], text[], text)
    to chatter_app;
  end if;

  -- The app keeps the door: it writes what happened there, and no alert.
  if pg_catalog.to_regrole('chatter_app') is not null then
    grant execute on function chatter.blocked_until(inet, uuid) to chatter_app;
    grant select on
      chatter.security_events, chatter.alerts, chatter.passwords, chatter.api_keys,
      chatter.browser_sessions
    to chatter_app;
    grant insert (event_type, severity, user_id, ip_address, user_agent, correlation_id, details)
      on chatter.security_events to chatter_app;
    grant insert (user_id, hash, changed_at), update (hash, changed_at)
      on chatter.passwords to chatter_app;
    grant insert (user_id, name, prefix, hash, expires_at),
      update (expires_at, last_used_at, revoked_at)
      on chatter.api_keys to chatter_app;
    grant insert (user_id, hash, ip_address, user_agent, expires_at), update (revoked_at)
      on chatter.browser_sessions to chatter_app;
  end if;

  -- Readers see every figure and no text that a person or a model wrote.
  if pg_catalog.to_regrole('chatter_reader') is not null then
    grant usage on schema chatter to chatter_reader;
    grant select (id, external_id, role, created_at) on chatter.users to chatter_reader;
    grant select (
      id, external_id, user_id, status, created_at, message_count, prompt_tokens,
      completion_tokens, total_tokens, total_cost, unpriced_calls, last_message_at
    ) on chatter.conversations to chatter_reader;
    grant select (
      id, conversation_id, user_id, workflow_name, status, correlation_id, started_at,
      finished_at, error_type, model_calls, tool_calls, prompt_tokens, completion_tokens,
      total_tokens, total_cost
    ) on chatter.workflow_executions to chatter_reader;
    grant select (
      id, conversation_id, execution_id, role, kind, tool_call_id, provider_used, model_used,
      prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, cache_write_tokens,
      reasoning_tokens, cost, cost_source, usage_status, usage, response_time_ms,
      time_to_first_token_ms, finish_reason, status, error_type, correlation_id, created_at,
      model_call
    ) on chatter.messages to chatter_reader;
    grant select (
      id, execution_id, message_id, tool_call_id, tool_name, status, started_at, duration_ms,
      error_type
    ) on chatter.tool_calls to chatter_reader;
  end if;

  -- Of the figures over time the app has those that stop at the user it acts for.
  if pg_catalog.to_regrole('chatter_app') is not null then
    grant usage on schema analytics to chatter_app;
    grant select on analytics.usage_user_day_live to chatter_app;
    grant execute on function analytics.local_time(text, text) to chatter_app;
  end if;

  -- Readers see all of them, the worker keeps them.
  revoke all on all functions in schema analytics from public;
  foreach v_role in array array['chatter_reader', 'chatter_worker'] loop
    if pg_catalog.to_regrole(v_role) is not null then
      execute pg_catalog.format('grant usage on schema analytics to %I', v_role);
      execute pg_catalog.format('grant select on all tables in schema analytics to %I', v_role);
      execute pg_catalog.format(
        'grant execute on function chatter.clock(), analytics.latency_bin(double precision), '
        'analytics.bin_ms(smallint), analytics.quarter_hour(timestamptz), '
        'analytics.local_time(text, text), '
        'analytics.user_usage(timestamptz, timestamptz), '
        'analytics.user_totals(timestamptz, timestamptz), '
        'analytics.usage_between(timestamptz, timestamptz), '
        'analytics.latency_between(timestamptz, timestamptz), '
        'analytics.tools_between(timestamptz, timestamptz), '
        'analytics.usage_steps(timestamptz, timestamptz, text, text), '
        'analytics.grain(timestamptz, timestamptz, text), '
        'analytics.changed_days(bigint) to %I',
        v_role
      );
    end if;
  end loop;

  -- Everybody may ask which version the schema has. The table is Alembic's and
  -- is missing where the files of sql/schema were loaded by hand.
  foreach v_role in array array['chatter_app', 'chatter_reader', 'chatter_worker'] loop
    if pg_catalog.to_regrole(v_role) is not null
      and pg_catalog.to_regclass('chatter.alembic_version') is not null
    then
      execute pg_catalog.format('grant select on chatter.alembic_version to %I', v_role);
    end if;
  end loop;

  -- Workers wake by the events and close executions whose process died.
  if pg_catalog.to_regrole('chatter_worker') is not null then
    grant usage on schema chatter to chatter_worker;
    grant execute on function
      chatter.clock(), chatter.bell(), chatter.events_now(),
      chatter.events_after(text, integer, uuid, uuid, uuid, text[], text[], text)
    to chatter_worker;
    grant select on chatter.workflow_executions to chatter_worker;
    grant update (status, finished_at, error_type, error_message)
      on chatter.workflow_executions to chatter_worker;
    grant execute on function
      chatter.prune_events(timestamptz), chatter.prune_security(timestamptz),
      chatter.sweep_executions(interval), analytics.fold(integer), analytics.refresh(boolean)
    to chatter_worker;
    grant update (worker, worked_at) on analytics.state to chatter_worker;
  end if;
end
$$;

-- What it warns of was said when the roles were first granted.
set local client_min_messages = error;
select chatter.grant_roles();
reset client_min_messages;
