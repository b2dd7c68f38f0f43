-- Analytics of tool calls: how many, what became of them, how long they took.
--
-- As for messages (300): signed deltas, folded into rollups by the quarter of an hour and by the
-- UTC day. A call counts when it began, or, if it never ran, when its run began.

create table analytics.tool_deltas (
  id bigint not null generated always as identity,
  bucket timestamptz not null,
  tool_name text not null,
  status text not null,
  bin smallint not null,
  calls bigint not null,
  duration_ms numeric not null,
  constraint tool_deltas_pkey primary key (id)
);

create table analytics.tool_15min (
  bucket timestamptz not null,
  tool_name text not null,
  status text not null,
  bin smallint not null,
  calls bigint not null,
  duration_ms numeric not null,
  constraint tool_15min_pkey primary key (bucket, tool_name, status, bin)
)
with (fillfactor = 80);

create table analytics.tool_day (
  day date not null,
  tool_name text not null,
  status text not null,
  bin smallint not null,
  calls bigint not null,
  duration_ms numeric not null,
  constraint tool_day_pkey primary key (day, tool_name, status, bin)
)
with (fillfactor = 80);

comment on table analytics.tool_deltas is 'Signed changes of tool calls that wait to be folded into the rollups; a row per statement and group.';
comment on column analytics.tool_deltas.id is 'Order of arrival.';
comment on column analytics.tool_deltas.bucket is 'Quarter of an hour in which the call began; its run, if it never did.';
comment on column analytics.tool_deltas.tool_name is 'Which tool.';
comment on column analytics.tool_deltas.status is 'What became of the calls.';
comment on column analytics.tool_deltas.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
comment on column analytics.tool_deltas.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_deltas.duration_ms is 'How long they took, all together, in milliseconds.';
comment on sequence analytics.tool_deltas_id_seq is 'Ids of tool_deltas.';
comment on table analytics.tool_15min is 'Rollup: tool calls by quarter of an hour, tool, status and time they took.';
comment on column analytics.tool_15min.bucket is 'Quarter of an hour in which the call began; its run, if it never did.';
comment on column analytics.tool_15min.tool_name is 'Which tool.';
comment on column analytics.tool_15min.status is 'What became of the calls.';
comment on column analytics.tool_15min.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
comment on column analytics.tool_15min.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_15min.duration_ms is 'How long they took, all together, in milliseconds.';
comment on table analytics.tool_day is 'Rollup: tool calls by UTC day, tool, status and time they took.';
comment on column analytics.tool_day.day is 'UTC day on which the call began; its run, if it never did.';
comment on column analytics.tool_day.tool_name is 'Which tool.';
comment on column analytics.tool_day.status is 'What became of the calls.';
comment on column analytics.tool_day.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
comment on column analytics.tool_day.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_day.duration_ms is 'How long they took, all together, in milliseconds.';

-- The trigger says which rows, and with which sign.
create function chatter.tg_tool_calls__deltas() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sign smallint := tg_argv[0]::smallint;
begin
  insert into analytics.tool_deltas (bucket, tool_name, status, bin, calls, duration_ms)
  select
    analytics.quarter_hour(x.at), x.tool_name, x.status,
    case when x.duration_ms is null then -1 else analytics.latency_bin(x.duration_ms) end,
    v_sign * count(*),
    v_sign * coalesce(sum(x.duration_ms::numeric), 0)
  from (
    select
      r.tool_name, r.status, r.duration_ms,
      -- A run that goes in the same statement is in former_parents.
      coalesce(
        r.started_at, e.started_at,
        (select f.started_at from analytics.former_parents as f where f.id = r.execution_id)
      ) as at
    from changed_rows as r
      left join chatter.workflow_executions as e on e.id = r.execution_id
  ) as x
  -- A row without a run, from a session without triggers, was never counted.
  where x.at is not null
  group by 1, 2, 3, 4;
  return null;
end
$$;

create trigger _400_deltas_insert
  after insert on chatter.tool_calls
  referencing new table as changed_rows
  for each statement execute function chatter.tg_tool_calls__deltas('1');

create trigger _400_deltas_update_old
  after update on chatter.tool_calls
  referencing old table as changed_rows
  for each statement execute function chatter.tg_tool_calls__deltas('-1');

create trigger _401_deltas_update_new
  after update on chatter.tool_calls
  referencing new table as changed_rows
  for each statement execute function chatter.tg_tool_calls__deltas('1');

create trigger _400_deltas_delete
  after delete on chatter.tool_calls
  referencing old table as changed_rows
  for each statement execute function chatter.tg_tool_calls__deltas('-1');

comment on function chatter.tg_tool_calls__deltas() is 'Appends what a statement changed to analytics.tool_deltas.';
comment on trigger _400_deltas_insert on chatter.tool_calls is 'Adds new rows to the analytics.';
comment on trigger _400_deltas_update_old on chatter.tool_calls is 'Takes the old version of changed rows away.';
comment on trigger _401_deltas_update_new on chatter.tool_calls is 'Adds the new version of changed rows.';
comment on trigger _400_deltas_delete on chatter.tool_calls is 'Takes deleted rows away.';

-- When calls that never ran were booked is known from the run.
create function chatter.tg_refuse_change_of_start() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'chatter.workflow_executions.started_at stays as it is: the run''s tool calls are booked by it'
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      column = 'started_at',
      hint = 'Make a new run and move the tool calls there.';
end
$$;

create trigger _000_refuse_change_of_start
  before update of started_at on chatter.workflow_executions
  for each row when (old.started_at is distinct from new.started_at and old.tool_calls > 0)
  execute function chatter.tg_refuse_change_of_start();

comment on function chatter.tg_refuse_change_of_start() is 'Refuses another start of a run that has figures.';
comment on trigger _000_refuse_change_of_start on chatter.workflow_executions is 'A run with tool calls began when it did.';

-- Moves the deltas of tool calls into their rollups. Within analytics.fold(), whose lock keeps
-- others away.
create function analytics.fold_tools(p_limit integer) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_taken bigint;
begin
  with taken as (
    delete from analytics.tool_deltas as d
    where d.id in (select n.id from analytics.tool_deltas as n order by n.id limit p_limit)
    returning d.*
  ),

  quarters as (
    insert into analytics.tool_15min as u (bucket, tool_name, status, bin, calls, duration_ms)
    select t.bucket, t.tool_name, t.status, t.bin, sum(t.calls), sum(t.duration_ms)
    from taken as t
    group by t.bucket, t.tool_name, t.status, t.bin
    on conflict (bucket, tool_name, status, bin) do update
    set calls = u.calls + excluded.calls, duration_ms = u.duration_ms + excluded.duration_ms
  ),

  days as (
    insert into analytics.tool_day as u (day, tool_name, status, bin, calls, duration_ms)
    select (t.bucket at time zone 'UTC')::date, t.tool_name, t.status, t.bin, sum(t.calls), sum(t.duration_ms)
    from taken as t
    group by 1, t.tool_name, t.status, t.bin
    on conflict (day, tool_name, status, bin) do update
    set calls = u.calls + excluded.calls, duration_ms = u.duration_ms + excluded.duration_ms
  )

  select count(*) into v_taken from taken;
  return v_taken;
end
$$;

comment on function analytics.fold_tools(integer) is 'Folds waiting deltas of tool calls; returns how many.';

-- What the deltas of all tool calls would be, counted anew: for `chatter check` and rebuild().
create view analytics.tools_recounted as
select
  analytics.quarter_hour(coalesce(t.started_at, e.started_at)) as bucket,
  t.tool_name, t.status,
  case when t.duration_ms is null then -1 else analytics.latency_bin(t.duration_ms) end::smallint as bin,
  count(*) as calls,
  coalesce(sum(t.duration_ms::numeric), 0) as duration_ms
from chatter.tool_calls as t
  join chatter.workflow_executions as e on e.id = t.execution_id
group by 1, 2, 3, 4;

comment on view analytics.tools_recounted is 'Tool calls counted anew, by quarter of an hour and everything that rollups know; slow.';

-- Counts the rollups of tool calls anew; for rebuild(), whose locks keep others away.
create function analytics.rebuild_tools() returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  delete from analytics.tool_deltas;
  delete from analytics.tool_15min;
  delete from analytics.tool_day;

  insert into analytics.tool_15min (bucket, tool_name, status, bin, calls, duration_ms)
  select r.bucket, r.tool_name, r.status, r.bin, r.calls, r.duration_ms
  from analytics.tools_recounted as r;

  insert into analytics.tool_day (day, tool_name, status, bin, calls, duration_ms)
  select (u.bucket at time zone 'UTC')::date, u.tool_name, u.status, u.bin, sum(u.calls), sum(u.duration_ms)
  from analytics.tool_15min as u
  group by 1, u.tool_name, u.status, u.bin;
$$;

comment on function analytics.rebuild_tools() is 'Counts the rollups of tool calls anew.';

create view analytics.tool_15min_live as
select
  x.bucket, x.tool_name, x.status, x.bin,
  sum(x.calls)::bigint as calls, sum(x.duration_ms)::numeric as duration_ms
from (
  select r.bucket, r.tool_name, r.status, r.bin, r.calls, r.duration_ms
  from analytics.tool_15min as r
  union all
  select d.bucket, d.tool_name, d.status, d.bin, d.calls, d.duration_ms
  from analytics.tool_deltas as d
) as x
group by x.bucket, x.tool_name, x.status, x.bin
having sum(x.calls) <> 0;

comment on view analytics.tool_15min_live is 'Tool calls by quarter of an hour, tool, status and time they took; exact now.';

create view analytics.tool_day_live as
select
  x.day, x.tool_name, x.status, x.bin,
  sum(x.calls)::bigint as calls, sum(x.duration_ms)::numeric as duration_ms
from (
  select r.day, r.tool_name, r.status, r.bin, r.calls, r.duration_ms
  from analytics.tool_day as r
  union all
  select (d.bucket at time zone 'UTC')::date, d.tool_name, d.status, d.bin, d.calls, d.duration_ms
  from analytics.tool_deltas as d
) as x
group by x.day, x.tool_name, x.status, x.bin
having sum(x.calls) <> 0;

comment on view analytics.tool_day_live is 'Tool calls by UTC day, tool, status and time they took; exact now.';

-- As usage_between (310): whole UTC days from tool_day, the rest from tool_15min.
create function analytics.tools_between(p_since timestamptz, p_until timestamptz)
returns table (tool_name text, status text, bin smallint, calls bigint, duration_ms numeric)
language sql stable
as $$
  with days as (
    select
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first,
      date_bin('1 day', p_until, '2000-01-01 00:00:00+00') as last
  )

  select u.tool_name, u.status, u.bin, u.calls, u.duration_ms
  from days as d
    join analytics.tool_day as u
      on u.day >= (d.first at time zone 'UTC')::date and u.day < (d.last at time zone 'UTC')::date
  union all
  select u.tool_name, u.status, u.bin, u.calls, u.duration_ms
  from days as d
    cross join lateral (
      values (p_since, least(p_until, greatest(d.first, p_since))),
        (greatest(d.last, least(p_until, greatest(d.first, p_since))), p_until)
    ) as edge (since, until)
    join analytics.tool_15min as u on u.bucket >= edge.since and u.bucket < edge.until
  union all
  select u.tool_name, u.status, u.bin, u.calls, u.duration_ms
  from analytics.tool_deltas as u
  where u.bucket >= (select p_since) and u.bucket < (select p_until)
$$;

comment on function analytics.tools_between(timestamptz, timestamptz) is
  'Tool calls between two moments (the second one excluded), to the quarter of an hour, in rows to sum up; exact now.';
