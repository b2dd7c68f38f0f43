-- Failures at the door take turns by a table of ours: who may connect could hold the advisory lock.
create unlogged table chatter.alert_turns (
  id bigint not null,
  constraint alert_turns_pkey primary key (id)
);

comment on table chatter.alert_turns is
  'Empty. A row that comes and goes lets writers of one rule and subject take turns.';
comment on column chatter.alert_turns.id is 'A hash of the rule and the subject.';

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

-- The advisory lock first: no writer waits for it.
create or replace function analytics.rebuild() returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_messages bigint;
begin
  -- First the lock that whoever may connect can hold: no writer waits for it with us. A fold,
  -- which has it meanwhile, writes neither table, and so never waits for us.
  perform pg_catalog.pg_advisory_xact_lock(chatter.bell() + 1);
  lock table chatter.messages, chatter.tool_calls in share row exclusive mode;
  -- Every day changes, also one that has nothing afterwards.
  update analytics.state as s set folds = coalesce(s.folds, 0) + 1;
  insert into analytics.days (day, fold)
  select k.day, s.folds
  from (select u.day from analytics.usage_day as u union select d.day from analytics.days as d) as k
    cross join analytics.state as s
  on conflict (day) do update
  set fold = excluded.fold;

  delete from analytics.deltas;
  delete from analytics.usage_15min;
  delete from analytics.usage_hourly;
  delete from analytics.usage_day;
  delete from analytics.usage_user_day;
  delete from analytics.usage_user_month;
  delete from analytics.latency_hour;
  delete from analytics.latency_day;

  insert into analytics.deltas (
    bucket, user_id, workflow_name, provider, model, kind,
    messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage,
    sign, response_bins, first_token_bins
  )
  select
    r.bucket, r.user_id, r.workflow_name, r.provider, r.model, r.kind,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens, r.completion_tokens,
    r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost,
    r.unpriced_calls, r.unknown_usage,
    1, r.response_bins, r.first_token_bins
  from analytics.usage_recounted as r;
  select coalesce(sum(d.messages), 0) into v_messages from analytics.deltas as d;
  -- Few large ones: what a transaction has deleted, it steps over again and again.
  while analytics.fold(2000000) > 0 loop
    null;
  end loop;
  perform analytics.rebuild_tools();
  perform analytics.rebuild_dearest();
  return v_messages;
end
$$;

-- A session begun with a key is of that key's user.
create or replace function chatter.create_own_policies() returns void
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

do $$
begin
  if pg_catalog.to_regrole('chatter_app') is not null then
    perform chatter.create_own_policies();
  end if;
end
$$;
