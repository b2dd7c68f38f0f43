alter table chatter.workflow_executions add column recorder_id uuid;

comment on column chatter.workflow_executions.recorder_id is
  'The chatter.recorders row of the process that records it, by which one that died is told; NULL if none does. No reference: a run is booked before its recorder is known where a spool was adopted.';

-- Recorders: the processes that record runs, and whether they live. A process that is killed
-- ends none of its runs; its heartbeat stops, and the worker ends them.

create table chatter.recorders (
  id uuid not null,
  host text not null,
  process_id bigint not null,
  started_at timestamptz not null default chatter.clock(),
  heartbeat_at timestamptz not null default chatter.clock(),
  stopped_at timestamptz,
  constraint recorders_pkey primary key (id)
);

-- Marks runs abandoned whose recorder has stopped or fallen silent; and those without a
-- recorder (a program of one's own) after a day. Their rows stay, with what they cost. While
-- this server was down nobody could be heard, so silence counts from its start. If the
-- process lives after all, because only its way to the database was cut, the end that it
-- books later wins (sql/queries/record_run_ends.sql). Returns how many.
create function chatter.sweep_executions(p_silent_for interval default '1 minute') returns bigint
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_now timestamptz := chatter.clock();
  v_swept bigint;
begin
  if p_silent_for is null or p_silent_for < interval '0' then
    raise exception 'p_silent_for must not be negative, not %', p_silent_for
      using errcode = 'invalid_parameter_value';
  end if;

  -- In id order, like every writer; what a writer holds this moment is not abandoned.
  with silent as (
    select e.id, coalesce(r.stopped_at, r.heartbeat_at) as last_sign
    from chatter.workflow_executions as e
      left join chatter.recorders as r on r.id = e.recorder_id
    where e.status = 'running'
      and case
        when e.recorder_id is null then e.started_at < v_now - interval '1 day'
        -- Adopted from the spool of a process that never reached the database.
        when r.id is null then e.started_at < v_now - p_silent_for
        when r.stopped_at is not null then true
        else greatest(r.heartbeat_at, pg_catalog.pg_postmaster_start_time()) < v_now - p_silent_for
      end
    order by e.id
    for update of e skip locked
  )

  update chatter.workflow_executions as e
  set status = 'abandoned',
      finished_at = greatest(e.started_at, coalesce(s.last_sign, v_now)),
      error_type = 'Abandoned',
      error_message = 'The process that ran it was last heard of then.'
  from silent as s
  where e.id = s.id;
  get diagnostics v_swept = row_count;

  delete from chatter.recorders as r
  where greatest(r.heartbeat_at, r.stopped_at) < v_now - interval '1 day'
    and not exists (
      select from chatter.workflow_executions as e
      where e.status = 'running' and e.recorder_id = r.id
    );
  return v_swept;
end
$$;

comment on table chatter.recorders is 'Processes that record runs, and when they were last heard of.';
comment on column chatter.recorders.id is 'UUIDv7, drawn by the process.';
comment on column chatter.recorders.host is 'Name of the machine.';
comment on column chatter.recorders.process_id is 'Process id on that machine.';
comment on column chatter.recorders.started_at is 'When it booked its first run.';
comment on column chatter.recorders.heartbeat_at is 'When it was last heard of; every ten seconds.';
comment on column chatter.recorders.stopped_at is 'When it was closed in order; NULL before, or if it was killed.';
comment on function chatter.sweep_executions(interval) is
  'Marks runs of processes that stopped or fell silent abandoned; returns how many.';

-- Roles.
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

  -- Workers close executions whose process died.
  if pg_catalog.to_regrole('chatter_worker') is not null then
    grant usage on schema chatter to chatter_worker;
    grant execute on function chatter.clock() to chatter_worker;
    grant select on chatter.workflow_executions to chatter_worker;
    grant update (status, finished_at, error_type, error_message)
      on chatter.workflow_executions to chatter_worker;
    grant execute on function
      chatter.prune_events(timestamptz), chatter.prune_security(timestamptz),
      chatter.sweep_executions(interval), analytics.fold(integer), analytics.refresh(boolean), chatter.bell()
    to chatter_worker;
    grant update (worker, worked_at) on analytics.state to chatter_worker;
  end if;
end
$$;

select chatter.grant_roles();
