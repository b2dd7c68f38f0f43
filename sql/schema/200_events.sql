-- Events: the outbox. A row for each thing that happened, written by the triggers
-- of 210 in the transaction of its cause: there if and only if that committed. NOTIFY
-- is only the doorbell; readers follow the table with the cursor of 220.
--
-- Rows are thin: ids, and a payload only where the fact can't be read later (the
-- totals of a conversation at that moment). 1,000 messages with an event each
-- kept 0.65 of the bare table's speed so, and 0.55 with a payload on every row. Nor has
-- event_type a check: a pattern matched for every row took half of the time that writing
-- a message's events takes. Triggers write constants; record_event() (210) looks at the rest.

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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

create function chatter.next_xact_id(p_id xid8) returns xid8
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select (p_id::text::numeric + 1)::text::xid8
$$;

-- Removes what happened before a time, whole transactions at once, and remembers
-- where the stream begins now. Never what a transaction that still runs may have
-- neighbours in. Returns the number of events removed.
create function chatter.prune_events(p_before timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_setting text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
  v_bound xid8;
  v_end xid8;
  v_removed bigint;
begin
  -- A caller may stop the clock of its session, and not put it forward to remove what is new.
  if p_before is null or p_before > least(chatter.clock(), clock_timestamp()) then
    raise exception 'chatter.prune_events() removes what is past; it was asked for all before %', p_before
      using errcode = 'invalid_parameter_value';
  end if;

  v_bound := pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot());
  select least(v_bound, min(e.xact_id)) into v_bound
  from chatter.events as e
  where e.created_at >= p_before;

  -- No further than what is removed: a reader who had it all has missed nothing.
  select max(e.xact_id) into v_end
  from chatter.events as e
  where e.xact_id < v_bound;

  perform pg_catalog.set_config('chatter.maintenance', 'on', true);
  delete from chatter.events as e where e.xact_id < v_bound;
  get diagnostics v_removed = row_count;
  perform pg_catalog.set_config('chatter.maintenance', v_setting, true);

  if v_removed > 0 then
    update chatter.event_stream as s
    set pruned_before = greatest(s.pruned_before, chatter.next_xact_id(v_end));
  end if;
  return v_removed;
end
$$;

-- After a restore into another cluster: transaction ids begin anew there, so those of
-- the copied events mean nothing. They become events of this transaction, and
-- positions of the original are refused from now on. Returns the new stream's id.
create function chatter.renew_event_stream() returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
comment on function chatter.next_xact_id(xid8) is 'The transaction id after this one.';
comment on function chatter.prune_events(timestamptz) is
  'Removes the events before a time, in whole transactions; returns how many.';
