-- Which change is which event; new messages are told by 308. All fire after the totals (200), so that ids are drawn
-- while the conversation, or for tools and ends of runs the execution, is locked: in
-- that order they commit, and readers see them.

-- For kinds that come from elsewhere, such as alerts: what a trigger calls for one event.
create function chatter.record_event(
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
set search_path = pg_catalog, pg_temp
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

comment on function chatter.record_event(text, text, jsonb, uuid, uuid, uuid, uuid, text) is
  'Writes one event and rings the bell; for triggers alone.';

-- The totals of a conversation at this moment: the one fact that later reads can't give.
-- No SET clause, so that Postgres inlines it; stable, as is the text of a number.
create function chatter.conversation_payload(p_conversation chatter.conversations) returns jsonb
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

comment on function chatter.conversation_payload(chatter.conversations) is
  'The payload of conversation_updated: the totals, cost as decimal text in US dollars.';

-- Changed or deleted messages are told by the new totals of their conversations.
create function chatter.tg_messages__events_of_change() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    perform chatter.record_conversations_updated(array(select o.conversation_id from old_rows as o));
  else
    -- By grouping, not by joining old and new rows: a function's plan is made at its first
    -- call and kept, and one for a single row would compare each of a hundred thousand rows
    -- with each.
    perform chatter.record_conversations_updated(array(
      select r.conversation_id
      from (
        select
          -1 as sign, o.id, o.conversation_id, o.kind, o.model_call, o.prompt_tokens,
          o.completion_tokens, o.total_tokens, o.cost
        from old_rows as o
        union all
        select
          1, n.id, n.conversation_id, n.kind, n.model_call, n.prompt_tokens,
          n.completion_tokens, n.total_tokens, n.cost
        from new_rows as n
      ) as r
      group by
        r.id, r.conversation_id, r.kind, r.model_call, r.prompt_tokens, r.completion_tokens,
        r.total_tokens, r.cost
      having sum(r.sign) <> 0
    ));
  end if;
  return null;
end
$$;

create function chatter.record_conversations_updated(p_conversation_ids uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(p_conversation_ids) = 0 then
    return;
  end if;
  insert into chatter.events (event_type, category, user_id, conversation_id, payload)
  select 'conversation_updated', 'conversation', c.user_id, c.id, chatter.conversation_payload(c)
  from chatter.conversations as c
  where c.id = any(p_conversation_ids)
  order by c.id;
  perform chatter.ring_bell();
end
$$;

create trigger _300_events_update
  after update on chatter.messages
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function chatter.tg_messages__events_of_change();

create trigger _300_events_delete
  after delete on chatter.messages
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_messages__events_of_change();

comment on function chatter.tg_messages__events_of_change() is
  'Writes conversation_updated where a change or deletion of messages changed totals.';
comment on function chatter.record_conversations_updated(uuid[]) is
  'Writes conversation_updated with the totals as they are now; for triggers.';
comment on trigger _300_events_update on chatter.messages is 'Writes conversation_updated where figures changed.';
comment on trigger _300_events_delete on chatter.messages is 'Writes conversation_updated.';

create function chatter.tg_conversations__events() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    insert into chatter.events (event_type, category, user_id, conversation_id)
    select 'conversation_created', 'conversation', n.user_id, n.id
    from new_rows as n;
    if found then
      perform chatter.ring_bell();
    end if;
  else
    perform chatter.record_conversations_updated(array[new.id]);
  end if;
  return null;
end
$$;

create trigger _300_events_insert
  after insert on chatter.conversations
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_conversations__events();

-- Named columns, and so per row: updates of totals, one per message, pass without a look.
create trigger _300_events_update
  after update of title, status on chatter.conversations
  for each row
  when (old.title is distinct from new.title or old.status is distinct from new.status)
  execute function chatter.tg_conversations__events();

comment on function chatter.tg_conversations__events() is
  'Writes conversation_created, and conversation_updated for a new title or status.';
comment on trigger _300_events_insert on chatter.conversations is 'Writes conversation_created.';
comment on trigger _300_events_update on chatter.conversations is
  'Writes conversation_updated for a new title or status.';

-- A run that was abandoned has failed, as far as anybody who waits for it is concerned.
create function chatter.tg_workflow_executions__events() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    insert into chatter.events (
      event_type, category, user_id, conversation_id, execution_id, correlation_id
    )
    select k.event_type, 'workflow', n.user_id, n.conversation_id, n.id, n.correlation_id
    from new_rows as n
      cross join lateral (
        values
          ('workflow_started', true),
          ('workflow_completed', n.status = 'completed'),
          ('workflow_failed', n.status in ('failed', 'abandoned')),
          ('workflow_cancelled', n.status = 'cancelled')
      ) as k (event_type, wanted)
    where k.wanted;
    if found then
      perform chatter.ring_bell();
    end if;
  else
    perform chatter.record_event(
      case new.status
        when 'completed' then 'workflow_completed'
        when 'cancelled' then 'workflow_cancelled'
        else 'workflow_failed'
      end,
      'workflow', null, new.user_id, new.conversation_id, new.id, null, new.correlation_id
    );
  end if;
  return null;
end
$$;

create trigger _300_events_insert
  after insert on chatter.workflow_executions
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_workflow_executions__events();

create trigger _300_events_update
  after update of status on chatter.workflow_executions
  for each row
  when (old.status is distinct from new.status and new.status <> 'running')
  execute function chatter.tg_workflow_executions__events();

comment on function chatter.tg_workflow_executions__events() is
  'Writes workflow_started, and workflow_completed, workflow_failed or workflow_cancelled at the end.';
comment on trigger _300_events_insert on chatter.workflow_executions is
  'Writes workflow_started, and the end of a run that is inserted as over.';
comment on trigger _300_events_update on chatter.workflow_executions is 'Writes the end of a run.';

create function chatter.tg_tool_calls__events() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into chatter.events (
    event_type, category, user_id, conversation_id, execution_id, subject_id, correlation_id
  )
  select 'tool_called', 'workflow', e.user_id, e.conversation_id, e.id, n.id, e.correlation_id
  from new_rows as n
    join chatter.workflow_executions as e on e.id = n.execution_id;
  if found then
    perform chatter.ring_bell();
  end if;
  return null;
end
$$;

create trigger _300_events_insert
  after insert on chatter.tool_calls
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_tool_calls__events();

comment on function chatter.tg_tool_calls__events() is 'Writes tool_called.';
comment on trigger _300_events_insert on chatter.tool_calls is 'Writes tool_called.';
