-- Writing a message's events took half of its time for matching event_type with a pattern,
-- once per event, though triggers write constants. Now record_event() looks, where the
-- type comes from elsewhere; the payload is inlined, and all of a statement is one insert.

alter table chatter.events drop constraint events_event_type_check;

create or replace function chatter.record_event(
  p_event_type text,
  p_category text,
  p_payload jsonb,
  p_user_id uuid default null,
  p_conversation_id uuid default null,
  p_execution_id uuid default null,
  p_subject_id uuid default null,
  p_correlation_id text default null
) returns void
language plpgsql volatile security definer
set search_path = ''
as $$
begin
  if pg_catalog.pg_trigger_depth() = 0 then
    raise exception 'events are written by the triggers of their causes'
      using
        errcode = 'object_not_in_prerequisite_state',
        hint = 'Write the cause; an event that nothing caused would be a lie.';
  end if;
  -- A pattern and not a list: a new kind of event needs no migration.
  if p_event_type is null or p_event_type !~ '^[a-z][a-z0-9_]{1,62}$' then
    raise exception '% is no event type', coalesce(pg_catalog.quote_literal(p_event_type), 'NULL')
      using
        errcode = 'invalid_parameter_value',
        hint = 'A lower-case letter, then letters, digits and underscores; 63 characters at most.';
  end if;
  insert into chatter.events (
    event_type, category, user_id, conversation_id, execution_id, subject_id, correlation_id, payload
  )
  values (
    p_event_type, p_category, p_user_id, p_conversation_id, p_execution_id, p_subject_id,
    p_correlation_id, p_payload
  );
  perform chatter.ring_bell();
end
$$;

create or replace function chatter.conversation_payload(p_conversation chatter.conversations) returns jsonb
language sql stable
as $$
  select pg_catalog.jsonb_build_object(
    'v', 1,
    'status', p_conversation.status,
    'message_count', p_conversation.message_count,
    'prompt_tokens', p_conversation.prompt_tokens,
    'completion_tokens', p_conversation.completion_tokens,
    'total_tokens', p_conversation.total_tokens,
    'total_cost', p_conversation.total_cost::text,
    'unpriced_calls', p_conversation.unpriced_calls
  )
$$;

create or replace function chatter.tg_messages__events() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
  insert into chatter.events (
    event_type, category, user_id, conversation_id, execution_id, subject_id, correlation_id, payload
  )
  select
    k.event_type, k.category, c.user_id, n.conversation_id, n.execution_id, n.id, n.correlation_id,
    null::jsonb
  from new_rows as n
    join chatter.conversations as c on c.id = n.conversation_id
    cross join lateral (
      values ('message_created', 'conversation', true), ('model_response', 'workflow', n.model_call)
    ) as k (event_type, category, wanted)
  where k.wanted
  union all
  (
    select
      'conversation_updated', 'conversation', c.user_id, c.id, null, null, null,
      chatter.conversation_payload(c)
    from chatter.conversations as c
    where c.id = any(array(select n.conversation_id from new_rows as n))
    order by c.id
  );
  if found then
    perform chatter.ring_bell();
  end if;
  return null;
end
$$;

-- A worker wakes by the hub of the events, which reads them.
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
      chatter.erase_conversation(uuid)
    to chatter_app;
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

  -- Figures over time: everybody who may see anything sees them, the worker keeps them.
  revoke all on all functions in schema analytics from public;
  foreach v_role in array array['chatter_app', 'chatter_reader', 'chatter_worker'] loop
    if pg_catalog.to_regrole(v_role) is not null then
      execute pg_catalog.format('grant usage on schema analytics to %I', v_role);
      execute pg_catalog.format('grant select on all tables in schema analytics to %I', v_role);
      execute pg_catalog.format(
        'grant execute on function chatter.clock(), analytics.latency_bin(double precision), '
        'analytics.bin_ms(smallint), analytics.quarter_hour(timestamptz), '
        'analytics.user_usage(timestamptz, timestamptz) to %I',
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

select chatter.grant_roles();
