-- Events: the outbox. A row for each thing that happened, written by the triggers
-- of 210 in the transaction of its cause: there if and only if that committed. NOTIFY
-- is only the doorbell; readers follow the table with the cursor of 220.
--
-- Rows are thin: ids, and a payload only where the fact can't be read later (the
-- totals of a conversation at that moment). 1,000 messages with an event each
-- kept 0.65 of the bare table's speed so, and 0.55 with a payload on every row.

create table chatter.events (
  id bigint not null generated always as identity,
  xact_id xid8 not null default pg_catalog.pg_current_xact_id(),
  event_type text not null,
  category text not null,
  user_id uuid,
  conversation_id uuid,
  execution_id uuid,
  subject_id uuid,
  correlation_id text,
  payload jsonb,
  created_at timestamptz not null default chatter.clock(),
  constraint events_pkey primary key (id),
  -- A pattern and not a list: a new kind of event needs no migration.
  constraint events_event_type_check check (event_type ~ '^[a-z][a-z0-9_]{1,62}$'),
  constraint events_category_check
    check (category in ('workflow', 'conversation', 'security', 'analytics', 'alert'))
);

-- What is newer than a snapshot, and what retention removes; the key's own index
-- continues a long batch in order.
create index events_xact_id_idx on chatter.events (xact_id);

-- Which stream this is, and where it begins. A copy of the database that was
-- restored elsewhere has other transaction ids, so positions name their stream.
create table chatter.event_stream (
  id uuid not null default chatter.uuid7(),
  pruned_before xid8 not null default '0',
  constraint event_stream_pkey primary key (id)
);

insert into chatter.event_stream default values;

create function chatter.tg_events__refuse_change() returns trigger
language plpgsql volatile
set search_path = ''
as $$
begin
  if tg_op <> 'TRUNCATE' and pg_catalog.current_setting('chatter.maintenance', true) = 'on' then
    return null;
  end if;
  raise exception 'chatter.events is append-only: % is refused', tg_op
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      hint = 'Events go by retention alone: select chatter.prune_events(timestamptz).';
end
$$;

create trigger _000_refuse_change
  before update or delete or truncate on chatter.events
  for each statement execute function chatter.tg_events__refuse_change();

-- Rings the bell: once per transaction, without payload, and only if nobody is awake.
-- A reader that is awake holds the lock `bell` exclusively and looks by itself; then
-- the commit is spared the cluster-wide lock that a NOTIFY takes. The lock is
-- tried after the rows are in, so a reader that lets go of it reads
-- once more everything that those who skipped may have written (events/hub.py).
create function chatter.ring_bell() returns void
language plpgsql volatile
set search_path = ''
as $$
begin
  if pg_catalog.pg_try_advisory_lock_shared(chatter.bell()) then
    perform pg_catalog.pg_advisory_unlock_shared(chatter.bell());
    perform pg_catalog.pg_notify('chatter_events', '');
  end if;
end
$$;

-- Any constant that no other program is likely to use: "chatterb" in ASCII.
create function chatter.bell() returns bigint
language sql immutable parallel safe
as 'select 7163371829926093154';

-- Removes what happened before a time, whole transactions at once, and remembers
-- where the stream begins now. Never what a transaction that still runs may have
-- neighbours in. Returns the number of events removed.
create function chatter.prune_events(p_before timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_setting text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
  v_bound xid8;
  v_removed bigint;
begin
  if p_before is null or p_before > chatter.clock() then
    raise exception 'chatter.prune_events() removes what is past; it was asked for all before %', p_before
      using errcode = 'invalid_parameter_value';
  end if;

  v_bound := pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot());
  select least(v_bound, min(e.xact_id)) into v_bound
  from chatter.events as e
  where e.created_at >= p_before;

  perform pg_catalog.set_config('chatter.maintenance', 'on', true);
  delete from chatter.events as e where e.xact_id < v_bound;
  get diagnostics v_removed = row_count;
  perform pg_catalog.set_config('chatter.maintenance', v_setting, true);

  if v_removed > 0 then
    update chatter.event_stream as s
    set pruned_before = greatest(s.pruned_before, v_bound);
  end if;
  return v_removed;
end
$$;

-- After a restore into another cluster: transaction ids begin anew there, so those of
-- the copied events mean nothing. They become events of this transaction, and
-- positions of the original are refused from now on. Returns the new stream's id.
create function chatter.renew_event_stream() returns uuid
language plpgsql volatile
set search_path = ''
as $$
declare
  v_setting text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
  v_id uuid := chatter.uuid7();
begin
  perform pg_catalog.set_config('chatter.maintenance', 'on', true);
  update chatter.events set xact_id = pg_catalog.pg_current_xact_id();
  perform pg_catalog.set_config('chatter.maintenance', v_setting, true);
  update chatter.event_stream set id = v_id, pruned_before = '0';
  return v_id;
end
$$;

comment on function chatter.renew_event_stream() is
  'Run once after pg_restore into another cluster: copied events get positions there, old positions are refused.';
comment on table chatter.events is
  'The outbox: what happened, written by triggers in the transaction of its cause. Append-only.';
comment on column chatter.events.id is 'Drawn while the cause''s row is locked: order of commit among its events.';
comment on column chatter.events.xact_id is 'The transaction that wrote it; what the cursor of readers goes by.';
comment on column chatter.events.event_type is
  'conversation_created, conversation_updated, message_created, model_response, tool_called, workflow_started, workflow_completed, workflow_failed, workflow_cancelled; later kinds by their own names.';
comment on column chatter.events.category is 'workflow, conversation, security, analytics or alert.';
comment on column chatter.events.user_id is 'Whose event; NULL if nobody''s.';
comment on column chatter.events.conversation_id is 'In which conversation; NULL if in none.';
comment on column chatter.events.execution_id is 'In which run; NULL if in none.';
comment on column chatter.events.subject_id is
  'The row it is about, such as the message; the payload is made from it when read.';
comment on column chatter.events.correlation_id is 'One id through request, run, calls and events.';
comment on column chatter.events.payload is
  'Only what can''t be read later; chatter.events_after() gives every event a payload.';
comment on column chatter.events.created_at is 'When it was written; commits may come in another order.';
comment on index chatter.events_xact_id_idx is 'What is newer than a snapshot; retention.';
comment on sequence chatter.events_id_seq is 'Ids of events.';
comment on table chatter.event_stream is 'One row: which stream of events this is, and where it begins.';
comment on column chatter.event_stream.id is 'UUIDv7; positions begin with it.';
comment on column chatter.event_stream.pruned_before is 'Events of transactions before this one were removed by retention.';
comment on function chatter.tg_events__refuse_change() is 'Refuses UPDATE, DELETE and TRUNCATE of the outbox.';
comment on trigger _000_refuse_change on chatter.events is 'Refuses UPDATE, DELETE and TRUNCATE.';
comment on function chatter.ring_bell() is 'Wakes readers by NOTIFY chatter_events, unless one is awake.';
comment on function chatter.bell() is 'The advisory lock that an awake reader of events holds.';
comment on function chatter.prune_events(timestamptz) is
  'Removes the events before a time, in whole transactions; returns how many.';
-- Which change is which event. All fire after the totals (200), so that ids are drawn
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
set search_path = ''
as $$
begin
  if pg_catalog.pg_trigger_depth() = 0 then
    raise exception 'events are written by the triggers of their causes'
      using
        errcode = 'object_not_in_prerequisite_state',
        hint = 'Write the cause; an event that nothing caused would be a lie.';
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
create function chatter.conversation_payload(p_conversation chatter.conversations) returns jsonb
language sql immutable
set search_path = ''
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

-- A new message is message_created, a model call model_response besides; then its
-- conversation was updated, once per statement.
create function chatter.tg_messages__events() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
  insert into chatter.events (
    event_type, category, user_id, conversation_id, execution_id, subject_id, correlation_id
  )
  select
    k.event_type, k.category, c.user_id, n.conversation_id, n.execution_id, n.id, n.correlation_id
  from new_rows as n
    join chatter.conversations as c on c.id = n.conversation_id
    cross join lateral (
      values ('message_created', 'conversation', true), ('model_response', 'workflow', n.model_call)
    ) as k (event_type, category, wanted)
  where k.wanted;

  perform chatter.record_conversations_updated(array(select n.conversation_id from new_rows as n));
  return null;
end
$$;

-- Changed or deleted messages are told by the new totals of their conversations.
create function chatter.tg_messages__events_of_change() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
  if tg_op = 'DELETE' then
    perform chatter.record_conversations_updated(array(select o.conversation_id from old_rows as o));
  else
    perform chatter.record_conversations_updated(array(
      select k.id
      from old_rows as o
        join new_rows as n on n.id = o.id
        cross join lateral (values (o.conversation_id), (n.conversation_id)) as k (id)
      where (
          o.conversation_id, o.kind, o.model_call, o.prompt_tokens, o.completion_tokens, o.total_tokens,
          o.cost
        ) is distinct from (
          n.conversation_id, n.kind, n.model_call, n.prompt_tokens, n.completion_tokens, n.total_tokens,
          n.cost
        )
    ));
  end if;
  return null;
end
$$;

create function chatter.record_conversations_updated(p_conversation_ids uuid[]) returns void
language plpgsql volatile
set search_path = ''
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

create trigger _300_events_insert
  after insert on chatter.messages
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_messages__events();

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

comment on function chatter.tg_messages__events() is
  'Writes message_created, model_response and conversation_updated.';
comment on function chatter.tg_messages__events_of_change() is
  'Writes conversation_updated where a change or deletion of messages changed totals.';
comment on function chatter.record_conversations_updated(uuid[]) is
  'Writes conversation_updated with the totals as they are now; for triggers.';
comment on trigger _300_events_insert on chatter.messages is 'Writes the events of new messages.';
comment on trigger _300_events_update on chatter.messages is 'Writes conversation_updated where figures changed.';
comment on trigger _300_events_delete on chatter.messages is 'Writes conversation_updated.';

create function chatter.tg_conversations__events() returns trigger
language plpgsql volatile security definer
set search_path = ''
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
set search_path = ''
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
set search_path = ''
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
-- The cursor: how any reader, on any machine, follows the events without missing one.
--
-- Ids can't be the cursor: what commits late has a lower id than what was read
-- already. Nor can "all before the oldest open transaction", which one session
-- idle in transaction would hold back for everybody. The cursor is a snapshot: new is
-- what the last snapshot did not see. A position is a text,
--
--   <stream>.<P>              all that P sees was delivered
--   <stream>.<P>.<C>.<id>     and of what C sees and P doesn't, the rows up to <id>
--
-- where P and C are snapshots as Postgres writes them (xmin:xmax:running,...). The
-- second form is a place within a batch; P and C fix its rows, so it can be
-- finished exactly, by whoever resumes.
--
-- From psql or any language:
--
--   select chatter.events_now();                        -- begin here, or with null
--   select * from chatter.events_after('<position>');   -- again and again, each time
--                                                       -- with the last row's position
--
-- With filters, a reader that gets no row may go on from a chatter.events_now() that
-- it took before it asked. With p_until, a position between batches, it reads no
-- further than that: how a reader catches up with one that is ahead of it.

create type chatter.event_position as (
  p pg_snapshot,
  c pg_snapshot,
  id bigint
);

comment on type chatter.event_position is 'A position in the events, taken apart.';
comment on column chatter.event_position.p is 'All that this snapshot sees was delivered.';
comment on column chatter.event_position.c is 'The snapshot whose batch is being read; NULL between batches.';
comment on column chatter.event_position.id is 'The last event delivered of that batch; NULL between batches.';

-- Reads a position. Fails with 22023 for what is none of this stream, and with CH410
-- where retention has removed events that its reader has not seen.
create function chatter.parse_position(p_position text) returns chatter.event_position
language plpgsql stable security definer
set search_path = ''
as $$
declare
  v_stream chatter.event_stream;
  v_parts text[] := pg_catalog.string_to_array(p_position, '.');
  v chatter.event_position;
begin
  select * into v_stream from chatter.event_stream;
  if p_position !~ '^[0-9a-f]{12}\.\d{1,19}:\d{1,19}:[\d,]*(\.\d{1,19}:\d{1,19}:[\d,]*\.\d{1,18})?$'
    or v_parts[1] <> chatter.stream_name(v_stream.id)
  then
    raise exception 'this is no position in the events of this database'
      using
        errcode = 'invalid_parameter_value',
        hint = 'Positions come from chatter.events_now() and chatter.events_after(), or as id of an SSE event.';
  end if;
  begin
    v := row(v_parts[2]::pg_snapshot, v_parts[3]::pg_snapshot, v_parts[4]::bigint);
  exception
    when invalid_text_representation or numeric_value_out_of_range then
      raise exception 'this is no position in the events of this database'
        using errcode = 'invalid_parameter_value';
  end;

  if pg_catalog.pg_snapshot_xmin(v.p) < v_stream.pruned_before then
    raise exception 'events after this position were removed by retention'
      using
        errcode = 'CH410',
        hint = 'Begin anew at chatter.events_oldest().';
  end if;
  return v;
end
$$;

comment on function chatter.parse_position(text) is
  'A position taken apart; 22023 if it is none, CH410 if retention has passed it by.';

-- 12 hexadecimal digits from the random end of the id.
create function chatter.stream_name(p_id uuid) returns text
language sql immutable
set search_path = ''
as $$
  select pg_catalog.right(p_id::text, 12)
$$;

comment on function chatter.stream_name(uuid) is 'How positions name their stream.';

create function chatter.events_now() returns text
language sql stable security definer
set search_path = ''
as $$
  select chatter.stream_name(s.id) || '.' || pg_catalog.pg_current_snapshot()::text
  from chatter.event_stream as s
$$;

comment on function chatter.events_now() is
  'The position after all that is committed now: begin here to hear of what comes.';

create function chatter.events_oldest() returns text
language sql stable security definer
set search_path = ''
as $$
  -- A snapshot that saw all that retention has removed, and nothing since.
  select pg_catalog.format(
    '%s.%s:%s:', chatter.stream_name(s.id),
    greatest(s.pruned_before, '1'::xid8), greatest(s.pruned_before, '1'::xid8)
  )
  from chatter.event_stream as s
$$;

comment on function chatter.events_oldest() is
  'The position before the oldest event there is.';

-- Rows that C sees and P doesn't, beyond an id and through the filters, in order.
create function chatter.event_batch(
  p_p pg_snapshot,
  p_c pg_snapshot,
  p_id bigint,
  p_limit integer,
  p_user_id uuid,
  p_conversation_id uuid,
  p_execution_id uuid,
  p_event_types text[],
  p_categories text[]
) returns setof chatter.events
language plpgsql stable
set search_path = ''
as $$
begin
  -- Two plans for one question. A batch begins where the transactions do: all its
  -- rows are found by xact_id and sorted (`+ 0` keeps the planner from walking the ids
  -- of all that was ever delivered). It goes on where it was left: by id.
  if p_id = 0 then
    return query
    select e.*
    from chatter.events as e
    where e.xact_id >= pg_catalog.pg_snapshot_xmin(p_p)
      and e.xact_id < pg_catalog.pg_snapshot_xmax(p_c)
      and not pg_catalog.pg_visible_in_snapshot(e.xact_id, p_p)
      and pg_catalog.pg_visible_in_snapshot(e.xact_id, p_c)
      and (p_user_id is null or e.user_id = p_user_id)
      and (p_conversation_id is null or e.conversation_id = p_conversation_id)
      and (p_execution_id is null or e.execution_id = p_execution_id)
      and (p_event_types is null or e.event_type = any(p_event_types))
      and (p_categories is null or e.category = any(p_categories))
    order by e.id + 0
    limit p_limit;
  else
    return query
    select e.*
    from chatter.events as e
    where e.id > p_id
      and not pg_catalog.pg_visible_in_snapshot(e.xact_id, p_p)
      and pg_catalog.pg_visible_in_snapshot(e.xact_id, p_c)
      and (p_user_id is null or e.user_id = p_user_id)
      and (p_conversation_id is null or e.conversation_id = p_conversation_id)
      and (p_execution_id is null or e.execution_id = p_execution_id)
      and (p_event_types is null or e.event_type = any(p_event_types))
      and (p_categories is null or e.category = any(p_categories))
    order by e.id
    limit p_limit;
  end if;
end
$$;

comment on function chatter.event_batch(
  pg_snapshot, pg_snapshot, bigint, integer, uuid, uuid, uuid, text[], text[]
) is 'Events that one snapshot sees and another doesn''t, beyond an id; for chatter.events_after().';

-- A payload is made from the row that the event is about, unless it was kept: by
-- key, one event at a time, because a query with all of this in it takes Postgres longer
-- to start than to run. A row that is gone leaves its id. Version 1: ids and
-- figures, no text that a person or a model wrote.
create function chatter.event_payload(p_event chatter.events) returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  v jsonb;
begin
  if p_event.payload is not null then
    return p_event.payload;
  elsif p_event.event_type in ('message_created', 'model_response') then
    select pg_catalog.jsonb_build_object(
      'v', 1, 'message_id', m.id, 'role', m.role, 'kind', m.kind, 'status', m.status,
      'provider', m.provider_used, 'model', m.model_used, 'prompt_tokens', m.prompt_tokens,
      'completion_tokens', m.completion_tokens, 'total_tokens', m.total_tokens,
      'cost', m.cost::text, 'usage_status', m.usage_status,
      'response_time_ms', m.response_time_ms, 'error_type', m.error_type
    )
    into v
    from chatter.messages as m
    where m.id = p_event.subject_id;
    return coalesce(
      v, pg_catalog.jsonb_build_object('v', 1, 'message_id', p_event.subject_id, 'gone', true)
    );
  elsif p_event.event_type = 'tool_called' then
    select pg_catalog.jsonb_build_object(
      'v', 1, 'tool_call', t.id, 'message_id', t.message_id, 'tool_call_id', t.tool_call_id,
      'tool_name', t.tool_name, 'status', t.status, 'duration_ms', t.duration_ms
    )
    into v
    from chatter.tool_calls as t
    where t.id = p_event.subject_id;
    return coalesce(
      v, pg_catalog.jsonb_build_object('v', 1, 'tool_call', p_event.subject_id, 'gone', true)
    );
  elsif p_event.category = 'workflow' then
    select pg_catalog.jsonb_build_object(
      'v', 1, 'workflow_name', x.workflow_name, 'status', x.status,
      'started_at', x.started_at, 'finished_at', x.finished_at,
      'model_calls', x.model_calls, 'tool_calls', x.tool_calls,
      'total_tokens', x.total_tokens, 'total_cost', x.total_cost::text,
      'error_type', x.error_type
    )
    into v
    from chatter.workflow_executions as x
    where x.id = p_event.execution_id;
    return coalesce(v, '{"v": 1, "gone": true}');
  end if;
  return '{"v": 1}';
end
$$;

comment on function chatter.event_payload(chatter.events) is
  'The payload of an event: as kept, or made from the row it is about; ids and figures, no text.';

-- Up to p_limit events after a position (null: from the oldest on), in order, each
-- with the position to go on from. Stable: one snapshot for all it does.
create function chatter.events_after(
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

comment on function chatter.events_after(text, integer, uuid, uuid, uuid, text[], text[], text) is
  'The events after a position (null: from the oldest), in order, each with the position to go on from; filters that are null let everything pass.';
