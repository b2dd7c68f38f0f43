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
set search_path = pg_catalog, pg_temp
as $$
  select nullif(pg_catalog.current_setting('chatter.user_id', true), '')::uuid
$$;

comment on function chatter.acting_user() is
  'The user that this transaction acts for (setting chatter.user_id); NULL if for the app as a whole.';

-- From Postgres 16 on a member need not be allowed to become the role.
create function chatter.may_be_app() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
  -- The hot one. A scalar look-up by key costs a fraction of the function's call, and is not
  -- hashed over all conversations, as `exists` would be.
  create policy own on chatter.messages to chatter_app
    using (
      case
        when (select chatter.acting_user()) is null then false
        else (select chatter.acting_user()) = (
          select c.user_id from chatter.conversations as c where c.id = messages.conversation_id
        )
      end
    )
    with check (
      case
        when (select chatter.acting_user()) is null then false
        else (select chatter.acting_user()) = (
            select c.user_id from chatter.conversations as c where c.id = messages.conversation_id
          )
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
    using (user_id = (select chatter.acting_user()))
    with check (
      user_id = (select chatter.acting_user())
      and (
        api_key_id is null
        or user_id = (
          select k.user_id from chatter.api_keys as k where k.id = browser_sessions.api_key_id
        )
      )
    );

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
