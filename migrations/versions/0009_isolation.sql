-- Isolation: a transaction that acts for a user sees and writes what is that user's,
-- whatever its statements forget. `select chatter.act_for(user_id)` begins it; its end ends it.
--
-- A transaction that has not said for whom it acts acts for the app as a whole: the
-- recorder books the runs of many users in one commit, sign-in looks for who it is, and an
-- admin sees everybody. A login that shall never do that by omission begins at nobody:
--
--   alter role my_login set chatter.user_id = '00000000-0000-0000-0000-000000000000';
--
-- Two policies on every table: `everybody` for the transactions that act for no one in
-- particular, of whatever role; `own` for the app. The second belongs to a role that may
-- not exist yet, and so comes with chatter.grant_roles() (900).

create function chatter.acting_user() returns uuid
language sql stable parallel safe
set search_path = ''
as $$
  select nullif(pg_catalog.current_setting('chatter.user_id', true), '')::uuid
$$;

comment on function chatter.acting_user() is
  'The user that this transaction acts for (setting chatter.user_id); NULL if for the app as a whole.';

-- From Postgres 16 on a member need not be allowed to become the role.
create function chatter.may_be_app() returns boolean
language sql stable
set search_path = ''
as $$
  select pg_catalog.pg_has_role(
    'chatter_app',
    case
      when pg_catalog.current_setting('server_version_num')::integer >= 160000 then 'set'
      else 'member'
    end
  )
$$;

comment on function chatter.may_be_app() is
  'Whether the current user may become chatter_app, as acting for a user takes.';

-- Until the transaction ends it has the rights of chatter_app, too: an owner or a superuser
-- would pass every policy. Where that role could not be created there are no policies to pass.
create function chatter.act_for(p_user_id uuid) returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  if p_user_id is null then
    raise exception 'chatter.act_for() needs a user'
      using
        errcode = 'null_value_not_allowed',
        hint = 'A transaction that never calls it acts for the app as a whole.';
  end if;
  perform pg_catalog.set_config('chatter.user_id', p_user_id::text, true);
  if current_user <> 'chatter_app' and pg_catalog.to_regrole('chatter_app') is not null then
    if not chatter.may_be_app() then
      raise exception '% may not act for a user: it is no member of chatter_app', current_user
        using
          errcode = 'insufficient_privilege',
          hint = pg_catalog.format('As an administrator: grant chatter_app to %I;', current_user);
    end if;
    perform pg_catalog.set_config('role', 'chatter_app', true);
  end if;
end
$$;

comment on function chatter.act_for(uuid) is
  'Confines this transaction, until it ends, to what is a user''s, by row-level security.';

alter table chatter.users enable row level security;
alter table chatter.conversations enable row level security;
alter table chatter.workflow_executions enable row level security;
alter table chatter.messages enable row level security;
alter table chatter.tool_calls enable row level security;
alter table chatter.recorders enable row level security;
alter table chatter.events enable row level security;
alter table chatter.security_events enable row level security;
alter table chatter.alerts enable row level security;
alter table chatter.passwords enable row level security;
alter table chatter.api_keys enable row level security;
alter table chatter.browser_sessions enable row level security;

-- No function of ours in here: whoever may read a table must be able to run its policy.
-- In brackets with a `select` it runs once per statement, not per row.
create policy everybody on chatter.users
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.conversations
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.workflow_executions
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.messages
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.tool_calls
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.recorders
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.events
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.security_events
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.alerts
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.passwords
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.api_keys
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));
create policy everybody on chatter.browser_sessions
  using ((select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null));

-- Whether a parent is the user's. By key and by functions that no policy binds: written out
-- in a policy, the planner would hash all conversations there are, for each statement.
create function chatter.owns_conversation(p_id uuid) returns boolean
language plpgsql stable security definer
set search_path = ''
as $$
begin
  return exists (
    select from chatter.conversations as c
    where c.id = p_id and c.user_id = chatter.acting_user()
  );
end
$$;

create function chatter.owns_execution(p_id uuid) returns boolean
language plpgsql stable security definer
set search_path = ''
as $$
begin
  return exists (
    select from chatter.workflow_executions as e
    where e.id = p_id
      and (
        e.user_id = chatter.acting_user()
        or e.user_id is null and chatter.owns_conversation(e.conversation_id)
      )
  );
end
$$;

create function chatter.owns_message(p_id uuid) returns boolean
language plpgsql stable security definer
set search_path = ''
as $$
begin
  return exists (
    select from chatter.messages as m
    where m.id = p_id and chatter.owns_conversation(m.conversation_id)
  );
end
$$;

comment on function chatter.owns_conversation(uuid) is 'Whether a conversation is the acting user''s.';
comment on function chatter.owns_execution(uuid) is
  'Whether an execution is the acting user''s: by itself, else by its conversation.';
comment on function chatter.owns_message(uuid) is 'Whether a message is in a conversation of the acting user.';

-- What is a user's. A row may not point at what is another's either, or a total there would
-- move. `case` keeps the look-ups from a transaction that acts for the app as a whole. Alerts
-- and recorders are nobody's: acting for a user, there are none.
create function chatter.create_own_policies() returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_table text;
begin
  foreach v_table in array array[
    'users', 'conversations', 'workflow_executions', 'messages', 'tool_calls', 'events',
    'security_events', 'passwords', 'api_keys', 'browser_sessions'
  ] loop
    execute pg_catalog.format('drop policy if exists own on chatter.%I', v_table);
  end loop;

  create policy own on chatter.users to chatter_app
    using (id = (select chatter.acting_user()));
  create policy own on chatter.conversations to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.workflow_executions to chatter_app
    using (
      case
        when (select chatter.acting_user()) is null then false
        when user_id is null then chatter.owns_conversation(conversation_id)
        else user_id = (select chatter.acting_user())
      end
    )
    with check (
      case
        when (select chatter.acting_user()) is null then false
        when user_id <> (select chatter.acting_user()) then false
        when conversation_id is null then user_id is not null
        else chatter.owns_conversation(conversation_id)
      end
    );
  create policy own on chatter.messages to chatter_app
    using (
      case
        when (select chatter.acting_user()) is null then false
        else chatter.owns_conversation(conversation_id)
      end
    )
    with check (
      case
        when (select chatter.acting_user()) is null then false
        else chatter.owns_conversation(conversation_id)
          and (execution_id is null or chatter.owns_execution(execution_id))
      end
    );
  create policy own on chatter.tool_calls to chatter_app
    using (
      case
        when (select chatter.acting_user()) is null then false
        else chatter.owns_execution(execution_id)
      end
    )
    with check (
      case
        when (select chatter.acting_user()) is null then false
        else chatter.owns_execution(execution_id)
          and (message_id is null or chatter.owns_message(message_id))
      end
    );
  create policy own on chatter.events to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.security_events to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.passwords to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.api_keys to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.browser_sessions to chatter_app
    using (user_id = (select chatter.acting_user()));

  for v_table in
    select p.tablename from pg_catalog.pg_policies as p
    where p.schemaname = 'chatter' and p.policyname = 'own'
  loop
    execute pg_catalog.format(
      'comment on policy own on chatter.%I is %L',
      v_table, 'What is the user''s that the transaction acts for, see chatter.act_for().'
    );
  end loop;
end
$$;

comment on function chatter.create_own_policies() is
  'The policies of chatter_app, for chatter.grant_roles(); safe to repeat.';

comment on policy everybody on chatter.users is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.conversations is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.workflow_executions is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.messages is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.tool_calls is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.recorders is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.events is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.security_events is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.alerts is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.passwords is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.api_keys is 'All rows, while the transaction acts for the app as a whole.';
comment on policy everybody on chatter.browser_sessions is 'All rows, while the transaction acts for the app as a whole.';

create or replace function chatter.events_after(
  p_position text,
  p_limit integer default 100,
  p_user_id uuid default null,
  p_conversation_id uuid default null,
  p_execution_id uuid default null,
  p_event_types text[] default null,
  p_categories text[] default null,
  p_until text default null
) returns table (
  "position" text,
  id bigint,
  event_type text,
  category text,
  user_id uuid,
  conversation_id uuid,
  execution_id uuid,
  correlation_id text,
  payload jsonb,
  created_at timestamptz
)
language plpgsql stable security definer
set search_path = ''
as $$
declare
  v_acting_user uuid := nullif(pg_catalog.current_setting('chatter.user_id', true), '')::uuid;
  v_stream text;
  v_at chatter.event_position;
  v_now pg_snapshot := pg_catalog.pg_current_snapshot();
  v_batch chatter.events[];
  v_event chatter.events;
  v_rows integer;
  v_row integer;
begin
  if p_limit is null or p_limit not between 1 and 10000 then
    raise exception 'p_limit must be from 1 to 10000, not %', p_limit
      using errcode = 'invalid_parameter_value';
  end if;
  -- The function reads as its owner, whom no policy binds: here is what one would say (400).
  if v_acting_user is not null then
    if p_user_id <> v_acting_user then
      return;
    end if;
    p_user_id := v_acting_user;
  end if;

  select chatter.stream_name(s.id) into v_stream from chatter.event_stream as s;
  v_at := chatter.parse_position(coalesce(p_position, chatter.events_oldest()));
  if p_until is not null then
    v_now := (chatter.parse_position(p_until)).p;
  end if;

  -- First the rest of the batch that the reader is in, then the one up to now.
  for v_round in 1..2 loop
    if v_at.c is null then
      v_at := row(v_at.p, v_now, 0);
    end if;

    select array(
      select b
      from chatter.event_batch(
          v_at.p, v_at.c, v_at.id, p_limit, p_user_id, p_conversation_id, p_execution_id,
          p_event_types, p_categories
        ) as b
    )
    into v_batch;
    v_rows := pg_catalog.cardinality(v_batch);

    v_row := 0;
    foreach v_event in array v_batch loop
      v_row := v_row + 1;
      id := v_event.id;
      event_type := v_event.event_type;
      category := v_event.category;
      user_id := v_event.user_id;
      conversation_id := v_event.conversation_id;
      execution_id := v_event.execution_id;
      correlation_id := v_event.correlation_id;
      created_at := v_event.created_at;
      payload := chatter.event_payload(v_event);
      -- A batch's last row closes it, unless the limit may have cut it off.
      "position" := v_stream || '.' || case
        when v_row = v_rows and v_rows < p_limit then v_at.c::text
        else v_at.p::text || '.' || v_at.c::text || '.' || v_event.id::text
      end;
      return next;
    end loop;

    exit when v_rows > 0 or v_at.c::text = v_now::text;
    v_at := row(v_at.c, null, null);
  end loop;
end
$$;


-- What an app may read of analytics: by its own condition, because a view reads as its owner,
-- whom no policy binds (400).
create or replace view analytics.usage_user_day_live with (security_barrier) as
select
  x.day, x.user_id, x.provider, x.model,
  sum(x.messages)::bigint as messages, sum(x.turns)::bigint as turns,
  sum(x.calls)::bigint as calls, sum(x.failed_calls)::bigint as failed_calls,
  sum(x.prompt_tokens)::bigint as prompt_tokens,
  sum(x.completion_tokens)::bigint as completion_tokens,
  sum(x.total_tokens)::bigint as total_tokens,
  sum(x.cache_read_tokens)::bigint as cache_read_tokens,
  sum(x.cache_write_tokens)::bigint as cache_write_tokens,
  sum(x.reasoning_tokens)::bigint as reasoning_tokens, sum(x.cost)::numeric as cost,
  sum(x.unpriced_calls)::bigint as unpriced_calls, sum(x.unknown_usage)::bigint as unknown_usage
from (
  select
    r.day, r.user_id, r.provider, r.model,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens, r.completion_tokens,
    r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost,
    r.unpriced_calls, r.unknown_usage
  from analytics.usage_user_day as r
  union all
  select
    (d.bucket at time zone 'UTC')::date, d.user_id, d.provider, d.model,
    d.messages, d.turns, d.calls, d.failed_calls, d.prompt_tokens, d.completion_tokens,
    d.total_tokens, d.cache_read_tokens, d.cache_write_tokens, d.reasoning_tokens, d.cost,
    d.unpriced_calls, d.unknown_usage
  from analytics.deltas as d
) as x
where (select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null)
  or x.user_id = (select nullif(pg_catalog.current_setting('chatter.user_id', true), '')::uuid)
group by x.day, x.user_id, x.provider, x.model
having sum(x.messages) <> 0;


-- The app read the figures of all users; they are the reader's and the worker's.
do $$
begin
  if pg_catalog.to_regrole('chatter_app') is not null then
    revoke all on all tables in schema analytics from chatter_app;
    revoke all on all functions in schema analytics from chatter_app;
  end if;
end
$$;

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
        'analytics.user_usage(timestamptz, timestamptz), '
        'analytics.usage_between(timestamptz, timestamptz), '
        'analytics.latency_between(timestamptz, timestamptz), '
        'analytics.usage_steps(timestamptz, timestamptz, text, text), '
        'analytics.grain(timestamptz, timestamptz, text, text) to %I',
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
