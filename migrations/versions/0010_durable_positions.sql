-- Positions that a crash of Postgres can't make skip an event.

create or replace function chatter.next_xact_id(p_id xid8) returns xid8
language sql immutable parallel safe
set search_path = ''
as $$
  select (p_id::text::numeric + 1)::text::xid8
$$;

comment on function chatter.next_xact_id(xid8) is 'The transaction id after this one.';

-- Removes what happened before a time, whole transactions at once, and remembers
-- where the stream begins now. Never what a transaction that still runs may have
-- neighbours in. Returns the number of events removed.
create or replace function chatter.prune_events(p_before timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_setting text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
  v_bound xid8;
  v_end xid8;
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

comment on function chatter.prune_events(timestamptz) is
  'Removes the events before a time, in whole transactions; returns how many.';

-- The snapshot of now, as far as it may become a position. A crash of Postgres takes the
-- ids of transactions that had written nothing to disk, such as those rolled back,
-- and gives them out once more: a position that counts them as seen would miss the
-- transactions that get them next. So it ends behind the newest event there is: that one's
-- commit is on disk, and no id up to it comes again. Nothing that is visible lies beyond.
create or replace function chatter.event_snapshot() returns pg_snapshot
language plpgsql stable
set search_path = ''
as $$
declare
  v_now pg_snapshot := pg_catalog.pg_current_snapshot();
  v_newest xid8;
  v_end xid8;
begin
  select max(e.xact_id) into v_newest from chatter.events as e;
  select greatest(s.pruned_before, chatter.next_xact_id(v_newest), '1') into v_end
  from chatter.event_stream as s;
  v_end := least(v_end, pg_catalog.pg_snapshot_xmax(v_now));
  return pg_catalog.format(
    '%s:%s:%s',
    least(pg_catalog.pg_snapshot_xmin(v_now), v_end),
    v_end,
    (
      select pg_catalog.string_agg(x.id::text, ',' order by x.id)
      from pg_catalog.pg_snapshot_xip(v_now) as x (id)
      where x.id < v_end
    )
  )::pg_snapshot;
end
$$;

comment on function chatter.event_snapshot() is
  'The snapshot of now, no further than the newest event: what of it a crash can''t take back.';

create or replace function chatter.events_now() returns text
language sql stable security definer
set search_path = ''
as $$
  select chatter.stream_name(s.id) || '.' || chatter.event_snapshot()::text
  from chatter.event_stream as s
$$;

comment on function chatter.events_now() is
  'The position after all that is committed now: begin here to hear of what comes.';

-- Up to p_limit events after a position (null: from the oldest on), in order, each
-- with the position to go on from. Stable: one snapshot for all it does.
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
  v_now pg_snapshot := chatter.event_snapshot();
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

comment on function chatter.events_after(text, integer, uuid, uuid, uuid, text[], text[], text) is
  'The events after a position (null: from the oldest), in order, each with the position to go on from; filters that are null let everything pass.';

revoke all on function chatter.next_xact_id(xid8), chatter.event_snapshot() from public;
