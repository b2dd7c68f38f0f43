-- A period that begins after its end, and a local time with an offset, are refused by SQL, too.
-- Where clocks are set back over midnight that comes twice (Havana, the Azores), and Postgres takes
-- the second: the day begins with the first. PL/pgSQL, because it is planned once a session.
create or replace function analytics.moment(p_time text, p_time_zone text) returns timestamptz
language plpgsql stable
as $$
declare
  v_local timestamp := analytics.local_time(p_time, p_time_zone);
  v_at timestamptz := v_local at time zone p_time_zone;
  v_before timestamptz := v_at - interval '3 hours';
  v_first timestamptz;
begin
  if lower(p_time) = 'now' then
    return now();
  end if;
  -- Postgres would read over it.
  if p_time ~* '[0-9]:?[0-9]{2}([.][0-9]+)? *([-+][0-9][0-9:]*|z|utc|gmt|[a-z_]+/[a-z_/]+) *$' then
    raise exception 'A local time of % has no offset or time zone of its own: %.', p_time_zone, p_time
    using errcode = 'CH422', hint = 'Leave it out, or ask for that time_zone.';
  end if;
  -- If the clocks went on as they did before.
  v_first := v_before + (v_local - (v_before at time zone p_time_zone));
  if v_first < v_at and v_first at time zone p_time_zone = v_local then
    return v_first;
  end if;
  return v_at;
end
$$;

-- An empty answer would look like a period in which nothing was spent.
create function analytics.period_end(p_since text, p_until text, p_time_zone text) returns timestamptz
language plpgsql stable
as $$
declare
  v_until timestamptz := analytics.moment(p_until, p_time_zone);
begin
  if analytics.moment(p_since, p_time_zone) >= v_until then
    raise exception 'since (%) must be before until (%).', p_since, p_until
    using errcode = 'CH422';
  end if;
  return v_until;
end
$$;

comment on function analytics.period_end(text, text, text) is
  'When a period ends, from and until local times of a time zone (see analytics.moment); refused where it does not begin before.';

-- As before, and what reads a period for readers and the app.
create or replace function chatter.grant_roles() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
      chatter.erase_conversation(uuid), chatter.erase_texts(uuid, uuid), chatter.acting_user(),
      chatter.act_for(uuid), chatter.may_be_app(), chatter.owns_conversation(uuid),
      chatter.owns_execution(uuid), chatter.owns_message(uuid)
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
    grant insert (user_id, hash, ip_address, user_agent, expires_at, api_key_id),
      update (revoked_at)
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
    grant execute on function
      analytics.local_time(text, text), analytics.moment(text, text),
      analytics.period_end(text, text, text), analytics.known_cost(numeric, numeric, numeric)
    to chatter_app;
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
        'analytics.local_time(text, text), analytics.moment(text, text), '
        'analytics.period_end(text, text, text), '
        'analytics.known_cost(numeric, numeric, numeric), '
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
