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
--
-- On a hot standby a snapshot doesn't list the transactions that run. Positions end there
-- before the oldest of them, which so holds back what was committed after it; and a
-- position that is ahead of the standby fails with 57P03 until it has come that far.

create type chatter.event_position as (
  p pg_snapshot,
  c pg_snapshot,
  id bigint
);

comment on type chatter.event_position is 'A position in the events, taken apart.';
comment on column chatter.event_position.p is 'All that this snapshot sees was delivered.';
comment on column chatter.event_position.c is 'The snapshot whose batch is being read; NULL between batches.';
comment on column chatter.event_position.id is 'The last event delivered of that batch; NULL between batches.';

create function chatter.position_end(p_position chatter.event_position) returns xid8
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select greatest(pg_catalog.pg_snapshot_xmax(p_position.p), pg_catalog.pg_snapshot_xmax(p_position.c))
$$;

comment on function chatter.position_end(chatter.event_position) is
  'The first transaction of which a position says nothing.';

-- Reads a position. Fails with 22023 for what is none of this stream, and with CH410
-- where retention has removed events that its reader has not seen. A position that has seen
-- transactions which are still to come is of a server whose place this one took before it had
-- everything.
create function chatter.parse_position(p_position text) returns chatter.event_position
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stream chatter.event_stream;
  v_parts text[] := pg_catalog.string_to_array(p_position, '.');
  v chatter.event_position;
begin
  select * into v_stream from chatter.event_stream;
  -- No backslashes: with standard_conforming_strings off they would be escapes of the string.
  if p_position !~ (
      '^[0-9a-f]{12}[.][0-9]{1,19}:[0-9]{1,19}:[0-9,]*'
      || '([.][0-9]{1,19}:[0-9]{1,19}:[0-9,]*[.][0-9]{1,18})?$'
    )
    or v_parts[1] <> chatter.stream_name(v_stream.id)
  then
    raise exception 'this is no position in the events of this database'
      using
        errcode = 'invalid_parameter_value',
        hint = 'Positions come from chatter.events_now() and chatter.events_after(), or as id of an SSE event.';
  end if;
  begin
    v := row(v_parts[2]::pg_snapshot, v_parts[3]::pg_snapshot, v_parts[4]::bigint);
    if not pg_catalog.pg_is_in_recovery() then
      -- Fails with invalid_parameter_value for a transaction that is still to come.
      perform pg_catalog.pg_xact_status((chatter.position_end(v)::text::numeric - 1)::text::xid8);
    end if;
  exception
    when invalid_text_representation or numeric_value_out_of_range or invalid_parameter_value then
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
set search_path = pg_catalog, pg_temp
as $$
  select pg_catalog.right(p_id::text, 12)
$$;

comment on function chatter.stream_name(uuid) is 'How positions name their stream.';

-- The snapshot of now, as far as it may become a position. A crash of Postgres takes the
-- ids of transactions that had written nothing to disk, such as those rolled back,
-- and gives them out once more: a position that counts them as seen would miss the
-- transactions that get them next. So it ends behind the newest event there is: that one's
-- commit is on disk, and no id up to it comes again. Nothing that is visible lies beyond.
create function chatter.event_snapshot() returns pg_snapshot
language plpgsql stable
set search_path = pg_catalog, pg_temp
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
  if pg_catalog.pg_is_in_recovery() then
    v_end := least(v_end, pg_catalog.pg_snapshot_xmin(v_now));
  end if;
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
  'The snapshot of now, no further than the newest event: what of it a crash can''t take back. On a standby, no further than the oldest transaction that runs.';

create function chatter.events_now() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select chatter.stream_name(s.id) || '.' || chatter.event_snapshot()::text
  from chatter.event_stream as s
$$;

comment on function chatter.events_now() is
  'The position after all that is committed now: begin here to hear of what comes.';

create function chatter.events_oldest() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_running xid8[];
begin
  -- Two plans for one question. A batch begins where the transactions do: all its
  -- rows are found by xact_id and sorted (`+ 0` keeps the planner from walking the ids
  -- of all that was ever delivered). It goes on where it was left: by id.
  if p_id = 0 then
    -- What P doesn't see began after it or ran when it was taken. Said so, and not as "since
    -- the oldest that ran": a transaction that runs for an hour would have every reader go
    -- through all events of that hour, each time.
    v_running := array(select pg_catalog.pg_snapshot_xip(p_p));
    return query
    select e.*
    from chatter.events as e
    where (
        (e.xact_id >= pg_catalog.pg_snapshot_xmax(p_p) and e.xact_id < pg_catalog.pg_snapshot_xmax(p_c))
        or e.xact_id = any(v_running)
      )
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
set search_path = pg_catalog, pg_temp
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
      'unpriced_calls', (
        select count(*) from chatter.messages as u
        where u.execution_id = x.id and u.model_call and u.cost is null
      ),
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_acting_user uuid := nullif(pg_catalog.current_setting('chatter.user_id', true), '')::uuid;
  v_stream text;
  v_at chatter.event_position;
  v_until chatter.event_position;
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
    v_until := chatter.parse_position(p_until);
  end if;
  -- An error and not nothing: who gets nothing may go on from now.
  if pg_catalog.pg_is_in_recovery()
    and greatest(chatter.position_end(v_at), chatter.position_end(v_until)) > pg_catalog.pg_snapshot_xmax(v_now)
  then
    raise exception 'this standby has not come as far as the position yet'
      using
        errcode = 'cannot_connect_now',
        hint = 'Try again: it waits for the oldest transaction that runs on the primary.';
  end if;
  v_now := coalesce(v_until.p, v_now);

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
