-- Rollups for what was counted from the raw rows until now: users by month, tool calls, and the
-- dearest conversations. tool_usage tells the 95th percentile of the time that tools take
-- instead of the longest, which can't be kept when rows change. All is counted anew from
-- what is there.

-- No fold meanwhile.
select pg_catalog.pg_advisory_xact_lock(chatter.bell() + 1);

-- Waits for whoever is writing; from here on every delta names its conversations.
alter table analytics.deltas add column conversation_ids uuid[];

comment on column analytics.deltas.conversation_ids is 'Conversations whose cost it changed, some more than once; NULL if none.';

alter table analytics.former_parents add column started_at timestamptz;

comment on column analytics.former_parents.started_at is 'When the run began; NULL for a conversation.';

alter table analytics.state add column dearest_cost numeric not null default 0;
alter table analytics.state add column dearest_id uuid;

comment on column analytics.state.dearest_cost is 'The cost of the last conversation of which analytics.dearest_candidates has all that are dearer; 0: it has all.';
comment on column analytics.state.dearest_id is 'That conversation: of equal cost, the older id is the dearer.';

create table analytics.usage_user_month (
  month date not null,
  user_id uuid,
  messages bigint not null,
  turns bigint not null,
  calls bigint not null,
  failed_calls bigint not null,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  total_tokens bigint not null,
  cache_read_tokens bigint not null,
  cache_write_tokens bigint not null,
  reasoning_tokens bigint not null,
  cost numeric not null,
  unpriced_calls bigint not null,
  unknown_usage bigint not null,
  constraint usage_user_month_month_user_id_key
    unique nulls not distinct (month, user_id)
)
with (fillfactor = 80);

comment on table analytics.usage_user_month is 'Rollup: usage by UTC month and user.';
comment on column analytics.usage_user_month.month is 'First day of the UTC month in which the tokens were spent.';
comment on column analytics.usage_user_month.user_id is 'Whose conversation; NULL when the app did not say.';
comment on column analytics.usage_user_month.messages is 'Rows of any kind.';
comment on column analytics.usage_user_month.turns is 'What people wrote or were shown.';
comment on column analytics.usage_user_month.calls is 'Model calls, failed ones included.';
comment on column analytics.usage_user_month.failed_calls is 'Model calls that failed or were cancelled.';
comment on column analytics.usage_user_month.prompt_tokens is 'Prompt tokens, cached ones included.';
comment on column analytics.usage_user_month.completion_tokens is 'Completion tokens, reasoning included.';
comment on column analytics.usage_user_month.total_tokens is 'Tokens as the provider totals them.';
comment on column analytics.usage_user_month.cache_read_tokens is 'Prompt tokens read from a cache.';
comment on column analytics.usage_user_month.cache_write_tokens is 'Prompt tokens written to a cache.';
comment on column analytics.usage_user_month.reasoning_tokens is 'Completion tokens spent on reasoning.';
comment on column analytics.usage_user_month.cost is 'US dollars of the calls whose price is known.';
comment on column analytics.usage_user_month.unpriced_calls is 'Model calls of unknown cost.';
comment on column analytics.usage_user_month.unknown_usage is 'Model calls whose provider reported no usage.';

create or replace function analytics.tg_keep_former_parent() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
  if tg_table_name = 'conversations' then
    insert into analytics.former_parents (id, user_id) values (old.id, old.user_id)
    on conflict (id) do update set user_id = excluded.user_id;
  else
    insert into analytics.former_parents (id, workflow_name, started_at)
    values (old.id, old.workflow_name, old.started_at)
    on conflict (id) do update
    set workflow_name = excluded.workflow_name, started_at = excluded.started_at;
  end if;
  return old;
end
$$;

create or replace function chatter.tg_messages__deltas() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_sign smallint := tg_argv[0]::smallint;
begin
  insert into analytics.deltas (
    bucket, user_id, workflow_name, provider, model, kind,
    messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage,
    sign, response_bins, first_token_bins, conversation_ids
  )
  select
    analytics.quarter_hour(r.created_at),
    -- Parents that go in the same statement are in former_parents.
    case
      when c.id is not null then c.user_id
      else (select f.user_id from analytics.former_parents as f where f.id = r.conversation_id)
    end,
    case
      when e.id is not null then e.workflow_name
      when r.execution_id is null then ''
      else coalesce(
        (select f.workflow_name from analytics.former_parents as f where f.id = r.execution_id), ''
      )
    end,
    coalesce(r.provider_used, ''),
    coalesce(r.model_used, ''),
    r.kind,
    v_sign * count(*),
    v_sign * count(*) filter (where r.kind = 'turn'),
    v_sign * count(*) filter (where r.model_call),
    v_sign * count(*) filter (where r.model_call and r.status <> 'completed'),
    v_sign * coalesce(sum(r.prompt_tokens), 0),
    v_sign * coalesce(sum(r.completion_tokens), 0),
    v_sign * coalesce(sum(r.total_tokens), 0),
    v_sign * coalesce(sum(r.cache_read_tokens), 0),
    v_sign * coalesce(sum(r.cache_write_tokens), 0),
    v_sign * coalesce(sum(r.reasoning_tokens), 0),
    v_sign * coalesce(sum(r.cost), 0),
    v_sign * count(*) filter (where r.model_call and r.cost is null),
    v_sign * count(*) filter (where r.model_call and r.usage_status is not distinct from 'unknown'),
    v_sign,
    array_agg(analytics.latency_bin(r.response_time_ms))
      filter (where r.model_call and r.response_time_ms is not null),
    array_agg(analytics.latency_bin(r.time_to_first_token_ms))
      filter (where r.model_call and r.time_to_first_token_ms is not null),
    -- With duplicates: leaving them out would sort the rows.
    array_agg(r.conversation_id) filter (where r.cost <> 0)
  from changed_rows as r
    left join chatter.conversations as c on c.id = r.conversation_id
    left join chatter.workflow_executions as e on e.id = r.execution_id
  -- A row without a parent, from a session without triggers, was never counted.
  where c.id is not null
    or exists (select from analytics.former_parents as f where f.id = r.conversation_id)
  group by 1, 2, 3, 4, 5, 6;
  return null;
end
$$;

-- The conversations that cost most, without reading all of them.
--
-- No index can have them: a total in an index would make every update of a conversation write
-- to all of its indexes (110). So the fold keeps candidates: every conversation that is at
-- least as dear as a bound, which is in analytics.state. What became dearer since the last fold
-- is named by the deltas that wait. More candidates than 2,500 raise the bound, so that 1,500
-- are left; fewer than a thousand, which is what the view promises, and they are looked for
-- anew. That takes a reading of all conversations, after some hundred of the dearest were
-- deleted or became cheaper.

create table analytics.dearest_candidates (
  conversation_id uuid not null,
  total_cost numeric not null,
  constraint dearest_candidates_pkey primary key (conversation_id)
);

comment on table analytics.dearest_candidates is
  'Every conversation that is at least as dear as the bound in analytics.state, as of the last fold.';
comment on column analytics.dearest_candidates.conversation_id is 'The conversation; may be gone, if a delta that waits names it.';
comment on column analytics.dearest_candidates.total_cost is 'US dollars, as of the last fold.';

-- Looks for the candidates anew, among all conversations.
create function analytics.rebuild_dearest() returns void
language sql volatile
set search_path = ''
as $$
  -- No fold meanwhile.
  select pg_catalog.pg_advisory_xact_lock(chatter.bell() + 1);

  delete from analytics.dearest_candidates;

  insert into analytics.dearest_candidates (conversation_id, total_cost)
  select c.id, c.total_cost
  from chatter.conversations as c
  where c.total_cost > 0
  order by c.total_cost desc, c.id
  limit 1500;

  -- All of them are there, or the last one is the bound.
  update analytics.state as s
  set dearest_cost = coalesce(b.total_cost, 0), dearest_id = b.conversation_id
  from (values (true)) as one (row)
    left join (
      select d.total_cost, d.conversation_id
      from analytics.dearest_candidates as d
      order by d.total_cost desc, d.conversation_id
      offset 1499
    ) as b on true;
$$;

comment on function analytics.rebuild_dearest() is 'Looks for the dearest conversations among all of them.';

-- Takes up what became of these conversations. Within a fold, whose lock keeps others away.
create function analytics.keep_dearest(p_conversation_ids uuid[]) returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_all boolean;
  v_candidates bigint;
begin
  with found as materialized (
    select
      i.id, c.total_cost,
      c.total_cost > s.dearest_cost or c.total_cost = s.dearest_cost and c.id <= s.dearest_id as dear
    from unnest(p_conversation_ids) as i (id)
      cross join analytics.state as s
      left join chatter.conversations as c on c.id = i.id
  ),

  gone as (
    delete from analytics.dearest_candidates as d
    using found as f
    where d.conversation_id = f.id and f.dear is not true
  )

  insert into analytics.dearest_candidates as d (conversation_id, total_cost)
  select f.id, f.total_cost
  from found as f
  where f.dear
  on conflict (conversation_id) do update set total_cost = excluded.total_cost;

  select s.dearest_cost = 0, (select count(*) from analytics.dearest_candidates)
  into v_all, v_candidates
  from analytics.state as s;

  if v_candidates > 2500 then
    with ranked as materialized (
      select
        d.conversation_id, d.total_cost,
        row_number() over (order by d.total_cost desc, d.conversation_id) as place
      from analytics.dearest_candidates as d
    ),

    gone as (
      delete from analytics.dearest_candidates as d
      using ranked as r
      where d.conversation_id = r.conversation_id and r.place > 1500
    )

    update analytics.state as s
    set dearest_cost = r.total_cost, dearest_id = r.conversation_id
    from ranked as r
    where r.place = 1500;
  elsif v_candidates < 1000 and not v_all then
    perform analytics.rebuild_dearest();
  end if;
end
$$;

comment on function analytics.keep_dearest(uuid[]) is 'Takes up the cost of these conversations, for the dearest ones.';

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
set search_path = ''
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
set search_path = ''
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
set search_path = ''
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
set search_path = ''
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
  where u.bucket >= p_since and u.bucket < p_until
$$;

comment on function analytics.tools_between(timestamptz, timestamptz) is
  'Tool calls between two moments (the second one excluded), to the quarter of an hour, in rows to sum up; exact now.';

create or replace function analytics.fold(p_limit integer default 10000) returns bigint
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_taken bigint;
  v_conversations uuid[];
begin
  if p_limit is null or p_limit < 1 then
    raise exception 'p_limit must be at least 1, not %', p_limit
      using errcode = 'invalid_parameter_value';
  end if;
  if not pg_catalog.pg_try_advisory_xact_lock(chatter.bell() + 1) then
    return 0;
  end if;

  with taken as (
    delete from analytics.deltas as d
    where d.id in (select n.id from analytics.deltas as n order by n.id limit p_limit)
    returning d.*
  ),

  -- Grouped once for the three grains without a user.
  by_quarter as (
    select
      t.bucket, t.workflow_name, t.provider, t.model, t.kind,
      sum(t.messages)::bigint as messages,
      sum(t.turns)::bigint as turns,
      sum(t.calls)::bigint as calls,
      sum(t.failed_calls)::bigint as failed_calls,
      sum(t.prompt_tokens)::bigint as prompt_tokens,
      sum(t.completion_tokens)::bigint as completion_tokens,
      sum(t.total_tokens)::bigint as total_tokens,
      sum(t.cache_read_tokens)::bigint as cache_read_tokens,
      sum(t.cache_write_tokens)::bigint as cache_write_tokens,
      sum(t.reasoning_tokens)::bigint as reasoning_tokens,
      sum(t.cost)::numeric as cost,
      sum(t.unpriced_calls)::bigint as unpriced_calls,
      sum(t.unknown_usage)::bigint as unknown_usage
    from taken as t
    group by t.bucket, t.workflow_name, t.provider, t.model, t.kind
  ),

  quarters as (
    insert into analytics.usage_15min as u (
      bucket, workflow_name, provider, model, kind,
      messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage
    )
    select
      q.bucket, q.workflow_name, q.provider, q.model, q.kind,
      q.messages, q.turns, q.calls, q.failed_calls, q.prompt_tokens, q.completion_tokens,
      q.total_tokens, q.cache_read_tokens, q.cache_write_tokens, q.reasoning_tokens, q.cost,
      q.unpriced_calls, q.unknown_usage
    from by_quarter as q
    on conflict (bucket, workflow_name, provider, model, kind) do update
    set
      messages = u.messages + excluded.messages,
      turns = u.turns + excluded.turns,
      calls = u.calls + excluded.calls,
      failed_calls = u.failed_calls + excluded.failed_calls,
      prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
      completion_tokens = u.completion_tokens + excluded.completion_tokens,
      total_tokens = u.total_tokens + excluded.total_tokens,
      cache_read_tokens = u.cache_read_tokens + excluded.cache_read_tokens,
      cache_write_tokens = u.cache_write_tokens + excluded.cache_write_tokens,
      reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
      cost = u.cost + excluded.cost,
      unpriced_calls = u.unpriced_calls + excluded.unpriced_calls,
      unknown_usage = u.unknown_usage + excluded.unknown_usage
  ),

  hours as (
    insert into analytics.usage_hourly as u (
      hour, workflow_name, provider, model, kind,
      messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage
    )
    select
      date_trunc('hour', q.bucket, 'UTC'), q.workflow_name, q.provider, q.model, q.kind,
      sum(q.messages)::bigint as messages,
      sum(q.turns)::bigint as turns,
      sum(q.calls)::bigint as calls,
      sum(q.failed_calls)::bigint as failed_calls,
      sum(q.prompt_tokens)::bigint as prompt_tokens,
      sum(q.completion_tokens)::bigint as completion_tokens,
      sum(q.total_tokens)::bigint as total_tokens,
      sum(q.cache_read_tokens)::bigint as cache_read_tokens,
      sum(q.cache_write_tokens)::bigint as cache_write_tokens,
      sum(q.reasoning_tokens)::bigint as reasoning_tokens,
      sum(q.cost)::numeric as cost,
      sum(q.unpriced_calls)::bigint as unpriced_calls,
      sum(q.unknown_usage)::bigint as unknown_usage
    from by_quarter as q
    group by 1, q.workflow_name, q.provider, q.model, q.kind
    on conflict (hour, workflow_name, provider, model, kind) do update
    set
      messages = u.messages + excluded.messages,
      turns = u.turns + excluded.turns,
      calls = u.calls + excluded.calls,
      failed_calls = u.failed_calls + excluded.failed_calls,
      prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
      completion_tokens = u.completion_tokens + excluded.completion_tokens,
      total_tokens = u.total_tokens + excluded.total_tokens,
      cache_read_tokens = u.cache_read_tokens + excluded.cache_read_tokens,
      cache_write_tokens = u.cache_write_tokens + excluded.cache_write_tokens,
      reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
      cost = u.cost + excluded.cost,
      unpriced_calls = u.unpriced_calls + excluded.unpriced_calls,
      unknown_usage = u.unknown_usage + excluded.unknown_usage
  ),

  days as (
    insert into analytics.usage_day as u (
      day, workflow_name, provider, model, kind,
      messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage
    )
    select
      (q.bucket at time zone 'UTC')::date, q.workflow_name, q.provider, q.model, q.kind,
      sum(q.messages)::bigint as messages,
      sum(q.turns)::bigint as turns,
      sum(q.calls)::bigint as calls,
      sum(q.failed_calls)::bigint as failed_calls,
      sum(q.prompt_tokens)::bigint as prompt_tokens,
      sum(q.completion_tokens)::bigint as completion_tokens,
      sum(q.total_tokens)::bigint as total_tokens,
      sum(q.cache_read_tokens)::bigint as cache_read_tokens,
      sum(q.cache_write_tokens)::bigint as cache_write_tokens,
      sum(q.reasoning_tokens)::bigint as reasoning_tokens,
      sum(q.cost)::numeric as cost,
      sum(q.unpriced_calls)::bigint as unpriced_calls,
      sum(q.unknown_usage)::bigint as unknown_usage
    from by_quarter as q
    group by 1, q.workflow_name, q.provider, q.model, q.kind
    on conflict (day, workflow_name, provider, model, kind) do update
    set
      messages = u.messages + excluded.messages,
      turns = u.turns + excluded.turns,
      calls = u.calls + excluded.calls,
      failed_calls = u.failed_calls + excluded.failed_calls,
      prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
      completion_tokens = u.completion_tokens + excluded.completion_tokens,
      total_tokens = u.total_tokens + excluded.total_tokens,
      cache_read_tokens = u.cache_read_tokens + excluded.cache_read_tokens,
      cache_write_tokens = u.cache_write_tokens + excluded.cache_write_tokens,
      reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
      cost = u.cost + excluded.cost,
      unpriced_calls = u.unpriced_calls + excluded.unpriced_calls,
      unknown_usage = u.unknown_usage + excluded.unknown_usage
  ),

  user_days as (
    insert into analytics.usage_user_day as u (
      day, user_id, provider, model,
      messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage
    )
    select
      (t.bucket at time zone 'UTC')::date, t.user_id, t.provider, t.model,
      sum(t.messages)::bigint as messages,
      sum(t.turns)::bigint as turns,
      sum(t.calls)::bigint as calls,
      sum(t.failed_calls)::bigint as failed_calls,
      sum(t.prompt_tokens)::bigint as prompt_tokens,
      sum(t.completion_tokens)::bigint as completion_tokens,
      sum(t.total_tokens)::bigint as total_tokens,
      sum(t.cache_read_tokens)::bigint as cache_read_tokens,
      sum(t.cache_write_tokens)::bigint as cache_write_tokens,
      sum(t.reasoning_tokens)::bigint as reasoning_tokens,
      sum(t.cost)::numeric as cost,
      sum(t.unpriced_calls)::bigint as unpriced_calls,
      sum(t.unknown_usage)::bigint as unknown_usage
    from taken as t
    group by 1, t.user_id, t.provider, t.model
    on conflict (day, user_id, provider, model) do update
    set
      messages = u.messages + excluded.messages,
      turns = u.turns + excluded.turns,
      calls = u.calls + excluded.calls,
      failed_calls = u.failed_calls + excluded.failed_calls,
      prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
      completion_tokens = u.completion_tokens + excluded.completion_tokens,
      total_tokens = u.total_tokens + excluded.total_tokens,
      cache_read_tokens = u.cache_read_tokens + excluded.cache_read_tokens,
      cache_write_tokens = u.cache_write_tokens + excluded.cache_write_tokens,
      reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
      cost = u.cost + excluded.cost,
      unpriced_calls = u.unpriced_calls + excluded.unpriced_calls,
      unknown_usage = u.unknown_usage + excluded.unknown_usage
  ),

  user_months as (
    insert into analytics.usage_user_month as u (
      month, user_id,
      messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage
    )
    select
      date_trunc('month', t.bucket at time zone 'UTC')::date, t.user_id,
      sum(t.messages)::bigint as messages,
      sum(t.turns)::bigint as turns,
      sum(t.calls)::bigint as calls,
      sum(t.failed_calls)::bigint as failed_calls,
      sum(t.prompt_tokens)::bigint as prompt_tokens,
      sum(t.completion_tokens)::bigint as completion_tokens,
      sum(t.total_tokens)::bigint as total_tokens,
      sum(t.cache_read_tokens)::bigint as cache_read_tokens,
      sum(t.cache_write_tokens)::bigint as cache_write_tokens,
      sum(t.reasoning_tokens)::bigint as reasoning_tokens,
      sum(t.cost)::numeric as cost,
      sum(t.unpriced_calls)::bigint as unpriced_calls,
      sum(t.unknown_usage)::bigint as unknown_usage
    from taken as t
    group by 1, t.user_id
    on conflict (month, user_id) do update
    set
      messages = u.messages + excluded.messages,
      turns = u.turns + excluded.turns,
      calls = u.calls + excluded.calls,
      failed_calls = u.failed_calls + excluded.failed_calls,
      prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
      completion_tokens = u.completion_tokens + excluded.completion_tokens,
      total_tokens = u.total_tokens + excluded.total_tokens,
      cache_read_tokens = u.cache_read_tokens + excluded.cache_read_tokens,
      cache_write_tokens = u.cache_write_tokens + excluded.cache_write_tokens,
      reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
      cost = u.cost + excluded.cost,
      unpriced_calls = u.unpriced_calls + excluded.unpriced_calls,
      unknown_usage = u.unknown_usage + excluded.unknown_usage
  ),

  bins as (
    select date_trunc('hour', t.bucket, 'UTC') as hour, t.provider, t.model, l.measure, l.bin, sum(t.sign) as calls
    from taken as t
      cross join lateral (
        select 'response' as measure, b.bin from unnest(t.response_bins) as b (bin)
        union all
        select 'first_token', b.bin from unnest(t.first_token_bins) as b (bin)
      ) as l
    group by 1, t.provider, t.model, l.measure, l.bin
  ),

  latency_hours as (
    insert into analytics.latency_hour as u (hour, provider, model, measure, bin, calls)
    select b.hour, b.provider, b.model, b.measure, b.bin, b.calls
    from bins as b
    on conflict (hour, provider, model, measure, bin) do update
    set calls = u.calls + excluded.calls
  ),

  latency_days as (
    insert into analytics.latency_day as u (day, provider, model, measure, bin, calls)
    select (b.hour at time zone 'UTC')::date, b.provider, b.model, b.measure, b.bin, sum(b.calls)
    from bins as b
    group by 1, b.provider, b.model, b.measure, b.bin
    on conflict (day, provider, model, measure, bin) do update
    set calls = u.calls + excluded.calls
  )

  select
    count(*), array(select distinct i.id from taken as t cross join lateral unnest(t.conversation_ids) as i (id))
  into v_taken, v_conversations
  from taken;

  if v_conversations <> '{}' then
    perform analytics.keep_dearest(v_conversations);
  end if;
  v_taken := greatest(v_taken, analytics.fold_tools(p_limit));
  if v_taken > 0 then
    update analytics.state as s set folded_at = chatter.clock();
  end if;
  return v_taken;
end
$$;

comment on function analytics.fold(integer) is 'Folds up to p_limit waiting deltas of messages, and of tool calls, into the rollups, exactly once; returns how many of the more numerous.';

create or replace function analytics.rebuild() returns bigint
language plpgsql volatile
set search_path = ''
as $$
declare
  v_messages bigint;
begin
  lock table chatter.messages, chatter.tool_calls in share row exclusive mode;
  perform pg_catalog.pg_advisory_xact_lock(chatter.bell() + 1);
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

comment on function analytics.rebuild() is 'Counts the rollups anew from all messages and tool calls; for the owner, and slow.';

create view analytics.usage_user_month_live as
select
  x.month, x.user_id,
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
    r.month, r.user_id,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens, r.completion_tokens,
    r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost,
    r.unpriced_calls, r.unknown_usage
  from analytics.usage_user_month as r
  union all
  select
    date_trunc('month', d.bucket at time zone 'UTC')::date, d.user_id,
    d.messages, d.turns, d.calls, d.failed_calls, d.prompt_tokens, d.completion_tokens,
    d.total_tokens, d.cache_read_tokens, d.cache_write_tokens, d.reasoning_tokens, d.cost,
    d.unpriced_calls, d.unknown_usage
  from analytics.deltas as d
) as x
group by x.month, x.user_id
having sum(x.messages) <> 0;

comment on view analytics.usage_user_month_live is 'Usage by UTC month and user; exact now.';

drop function analytics.grain(timestamptz, timestamptz, text, text);

create function analytics.grain(p_since timestamptz, p_until timestamptz, p_time_zone text) returns text
language sql stable
as $$
  select
    case when bool_and(b.at = date_trunc('hour', b.at, 'UTC')) then 'hour' else 'quarter' end
  from (
    select p_since as at
    union all
    select p_until
    union all
    select midnight at time zone p_time_zone
    from (select min(u.day) as first, max(u.day) as last from analytics.usage_day as u) as k
      cross join lateral generate_series(
        greatest(k.first, (p_since at time zone 'UTC')::date)::timestamp,
        least(k.last + 1, (p_until at time zone 'UTC')::date + 1)::timestamp,
        interval '1 day'
      ) as midnight
  ) as b
$$;

comment on function analytics.grain(timestamptz, timestamptz, text) is
  'hour or quarter: the coarser rollup that is exact for a chart by hour of a time zone.';

create or replace function analytics.usage_steps(
  p_since timestamptz, p_until timestamptz, p_time_zone text, p_step text
)
returns table (
  bucket timestamptz, workflow_name text, provider text, model text, kind text, messages bigint, turns bigint, calls
  bigint, failed_calls bigint, prompt_tokens bigint, completion_tokens bigint, total_tokens bigint,
  cache_read_tokens bigint, cache_write_tokens bigint, reasoning_tokens bigint, cost numeric,
  unpriced_calls bigint, unknown_usage bigint
)
language sql stable
as $$
  with g as materialized (
    select
      case when p_step = 'day' then 'day' else analytics.grain(p_since, p_until, p_time_zone) end as grain
  ),

  period as materialized (
    select
      -- Midnights (UTC): of the first whole day, and after the last one.
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first,
      date_bin('1 day', p_until, '2000-01-01 00:00:00+00') as last
    from g
    where g.grain = 'day'
  ),

  -- What is read by quarters: without whole days all of it, or nothing.
  edges as materialized (
    select
      -- If no whole day lies between, the first edge is all there is.
      least(p_until, greatest(p.first, p_since)) as first_until,
      greatest(p.last, least(p_until, greatest(p.first, p_since))) as last_since
    from period as p
    union all
    select p_until, p_until
    from g
    where g.grain = 'quarter'
  ),

  -- Whole days (UTC) in which there may be anything.
  days as materialized (
    select
      d.day, c.starts, c.ends, c.local_start,
      -- 1 if the clocks are changed; a number, because the planner takes half of the days for true.
      (c.local_end - c.local_start <> interval '1 day')::integer as clocks_change
    from period as p
      cross join (select min(u.day) as first, max(u.day) as last from analytics.usage_day as u) as k
      cross join lateral (
        select
          generate_series(
            greatest((p.first at time zone 'UTC')::date, k.first)::timestamp,
            least((p.last at time zone 'UTC')::date - 1, k.last)::timestamp,
            interval '1 day'
          )::date as day
      ) as d
      cross join lateral (
        select
          x.starts, x.ends,
          x.starts at time zone p_time_zone as local_start, x.ends at time zone p_time_zone as local_end
        from (
          select d.day::timestamp at time zone 'UTC' as starts, (d.day + 1)::timestamp at time zone 'UTC' as ends
        ) as x
      ) as c
  ),

  -- Where a day counts, and what is moved from there to where: nothing, if the zone's midnight
  -- is the day's end.
  whole_days as materialized (
    select
      d.day,
      case when m.midnight - d.starts <= interval '12 hours' then m.midnight else d.starts end as bucket,
      case when m.midnight - d.starts <= interval '12 hours' then d.starts else m.midnight end as moved_since,
      case when m.midnight - d.starts <= interval '12 hours' then m.midnight else d.ends end as moved_until
    from days as d
      cross join lateral (
        select d.starts + (date_trunc('day', d.local_start) + interval '1 day' - d.local_start) as midnight
      ) as m
    where d.clocks_change = 0
  ),

  -- The moved part begins or ends at a midnight (UTC), and at one of the zone, which may be
  -- within an hour: quarters up to the next whole hour.
  parts as materialized (
    select
      c.bucket, c.moved_since, c.moved_until,
      date_bin('1 hour', c.moved_since + interval '1 hour' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first_hour,
      date_bin('1 hour', c.moved_until, '2000-01-01 00:00:00+00') as last_hour
    from whole_days as c
  ),

  -- Twelve hours and four quarters of a day at most. Said as numbers, of which the planner knows how
  -- many there are.
  hours as materialized (
    select h.hour, t.bucket, t.sign
    from parts as p
      cross join generate_series(0, 11) as n
      cross join lateral (values (p.first_hour + n * interval '1 hour')) as h (hour)
      cross join lateral (values (p.bucket, -1), (h.hour, 1)) as t (bucket, sign)
    where h.hour < p.last_hour
  ),

  quarters as materialized (
    select q.quarter, t.bucket, t.sign
    from parts as p
      cross join lateral (
        values (
            analytics.quarter_hour(p.moved_since + interval '15 minutes' - interval '1 microsecond'),
            least(p.first_hour, p.moved_until)
          ),
          (greatest(p.last_hour, p.first_hour), p.moved_until)
      ) as r (since, until)
      cross join generate_series(0, 3) as n
      cross join lateral (values (r.since + n * interval '15 minutes')) as q (quarter)
      cross join lateral (values (p.bucket, -1), (q.quarter, 1)) as t (bucket, sign)
    where q.quarter < r.until
    union all
    select q.quarter, q.quarter, 1
    from days as d
      cross join generate_series(0, 95) as n
      cross join lateral (values (d.starts + n * interval '15 minutes')) as q (quarter)
    where d.clocks_change = 1
  )

  select
    c.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from whole_days as c
    join analytics.usage_day as u on u.day = c.day
  union all
  select
    t.bucket, u.workflow_name, u.provider, u.model, u.kind,
    t.sign * u.messages, t.sign * u.turns, t.sign * u.calls, t.sign * u.failed_calls,
    t.sign * u.prompt_tokens, t.sign * u.completion_tokens, t.sign * u.total_tokens,
    t.sign * u.cache_read_tokens, t.sign * u.cache_write_tokens, t.sign * u.reasoning_tokens,
    t.sign * u.cost, t.sign * u.unpriced_calls, t.sign * u.unknown_usage
  from hours as t
    -- With an offset: looked up one by one, never by reading all of them.
    cross join lateral (select h.* from analytics.usage_hourly as h where h.hour = t.hour offset 0) as u
  union all
  select
    t.bucket, u.workflow_name, u.provider, u.model, u.kind,
    t.sign * u.messages, t.sign * u.turns, t.sign * u.calls, t.sign * u.failed_calls,
    t.sign * u.prompt_tokens, t.sign * u.completion_tokens, t.sign * u.total_tokens,
    t.sign * u.cache_read_tokens, t.sign * u.cache_write_tokens, t.sign * u.reasoning_tokens,
    t.sign * u.cost, t.sign * u.unpriced_calls, t.sign * u.unknown_usage
  from quarters as t
    cross join lateral (select q.* from analytics.usage_15min as q where q.bucket = t.quarter offset 0) as u
  union all
  select
    u.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.usage_15min as u
  where u.bucket >= p_since and u.bucket < (select e.first_until from edges as e)
  union all
  select
    u.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.usage_15min as u
  where u.bucket >= (select e.last_since from edges as e) and u.bucket < p_until
  union all
  select
    u.hour, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.usage_hourly as u
  where (select g.grain from g) = 'hour' and u.hour >= p_since and u.hour < p_until
  union all
  select
    u.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.deltas as u
  where u.bucket >= p_since and u.bucket < p_until
$$;

create or replace function analytics.user_usage(p_since timestamptz, p_until timestamptz)
returns table (
  user_id uuid, provider text, model text,
  messages bigint, turns bigint, calls bigint, failed_calls bigint, prompt_tokens bigint,
  completion_tokens bigint, total_tokens bigint, cache_read_tokens bigint,
  cache_write_tokens bigint, reasoning_tokens bigint, cost numeric, unpriced_calls bigint,
  unknown_usage bigint
)
language sql stable
as $$
  with days as (
    select
      -- Midnights (UTC): the nearest ones.
      date_bin('1 day', p_since + interval '12 hours', '2000-01-01 00:00:00+00') as first,
      date_bin('1 day', p_until + interval '12 hours', '2000-01-01 00:00:00+00') as last
    where p_since < p_until
  ),

  -- Between a moment and its midnight: to be added, or taken away.
  first_edge as materialized (
    select
      least(p_since, d.first) as since, greatest(p_since, d.first) as until,
      case when p_since < d.first then 1 else -1 end as sign
    from days as d
  ),

  last_edge as materialized (
    select
      least(p_until, d.last) as since, greatest(p_until, d.last) as until,
      case when p_until < d.last then -1 else 1 end as sign
    from days as d
  ),

  -- By values and not by a join, which the planner would take for a large one.
  edges as (
    select
      m.conversation_id, m.provider_used, m.model_used, m.kind, m.model_call, m.status,
      m.usage_status, m.prompt_tokens, m.completion_tokens, m.total_tokens, m.cache_read_tokens,
      m.cache_write_tokens, m.reasoning_tokens, m.cost,
      (select e.sign from first_edge as e) as sign
    from chatter.messages as m
    where m.created_at >= (select e.since from first_edge as e)
      and m.created_at < (select e.until from first_edge as e)
    union all
    select
      m.conversation_id, m.provider_used, m.model_used, m.kind, m.model_call, m.status,
      m.usage_status, m.prompt_tokens, m.completion_tokens, m.total_tokens, m.cache_read_tokens,
      m.cache_write_tokens, m.reasoning_tokens, m.cost,
      (select e.sign from last_edge as e) as sign
    from chatter.messages as m
    where m.created_at >= (select e.since from last_edge as e)
      and m.created_at < (select e.until from last_edge as e)
  )

  select
    u.user_id, u.provider, u.model,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from days as d
    join analytics.usage_user_day as u
      on u.day >= (d.first at time zone 'UTC')::date and u.day < (d.last at time zone 'UTC')::date
  union all
  select
    w.user_id, w.provider, w.model,
    w.messages, w.turns, w.calls, w.failed_calls, w.prompt_tokens, w.completion_tokens,
    w.total_tokens, w.cache_read_tokens, w.cache_write_tokens, w.reasoning_tokens, w.cost,
    w.unpriced_calls, w.unknown_usage
  from days as d
    join analytics.deltas as w on w.bucket >= d.first and w.bucket < d.last
  union all
  select
    c.user_id, coalesce(m.provider_used, ''), coalesce(m.model_used, ''),
    m.sign, m.sign * (m.kind = 'turn')::integer, m.sign * m.model_call::integer,
    m.sign * (m.model_call and m.status <> 'completed')::integer,
    m.sign * coalesce(m.prompt_tokens, 0), m.sign * coalesce(m.completion_tokens, 0),
    m.sign * coalesce(m.total_tokens, 0), m.sign * coalesce(m.cache_read_tokens, 0),
    m.sign * coalesce(m.cache_write_tokens, 0), m.sign * coalesce(m.reasoning_tokens, 0),
    m.sign * coalesce(m.cost, 0),
    m.sign * (m.model_call and m.cost is null)::integer,
    m.sign * (m.model_call and m.usage_status is not distinct from 'unknown')::integer
  from edges as m
    -- With a limit: looked up one by one, never by reading all conversations.
    cross join lateral (
      select t.user_id from chatter.conversations as t where t.id = m.conversation_id limit 1
    ) as c
$$;

create function analytics.user_totals(p_since timestamptz, p_until timestamptz)
returns table (
  user_id uuid,
  messages bigint, turns bigint, calls bigint, failed_calls bigint, prompt_tokens bigint,
  completion_tokens bigint, total_tokens bigint, cache_read_tokens bigint,
  cache_write_tokens bigint, reasoning_tokens bigint, cost numeric, unpriced_calls bigint,
  unknown_usage bigint
)
language sql stable
as $$
  with bounds as materialized (
    select
      b.first, n.is_newest,
      case when n.is_newest then b.midnight else date_trunc('month', p_until + interval '15 days', 'UTC') end as last
    from (
      select
        date_trunc('month', p_since + interval '15 days', 'UTC') as first,
        -- At which, or before which, the period ends.
        date_bin('1 day', p_until + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00') as midnight
    ) as b
      cross join lateral (
        select
          coalesce((select max(u.day) from analytics.usage_user_day as u) < (b.midnight at time zone 'UTC')::date, true)
            as is_newest
      ) as n
    where p_since < p_until
  ),

  months as materialized (
    select b.first, b.last, b.is_newest
    from bounds as b
    where b.first < b.last
      and greatest(p_since, b.first) - least(p_since, b.first) + (greatest(p_until, b.last) - least(p_until, b.last))
        < p_until - p_since
  ),

  -- Without months the first edge is nothing, and the last one all there is.
  first_edge as materialized (
    select
      least(p_since, m.first) as since, greatest(p_since, m.first) as until,
      case when p_since < m.first then 1 else -1 end as sign
    from months as m
  ),

  last_edge as materialized (
    select
      least(p_until, coalesce(m.last, p_since)) as since, greatest(p_until, coalesce(m.last, p_since)) as until,
      case when coalesce(m.last, p_since) < p_until then 1 else -1 end as sign
    from bounds as b
      left join months as m on true
  )

  select
    u.user_id,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from months as m
    join analytics.usage_user_month as u
      on u.month >= (m.first at time zone 'UTC')::date
      and (m.is_newest or u.month < (m.last at time zone 'UTC')::date)
  union all
  select
    w.user_id,
    w.messages, w.turns, w.calls, w.failed_calls, w.prompt_tokens, w.completion_tokens,
    w.total_tokens, w.cache_read_tokens, w.cache_write_tokens, w.reasoning_tokens, w.cost,
    w.unpriced_calls, w.unknown_usage
  from months as m
    join analytics.deltas as w on w.bucket >= m.first and w.bucket < m.last
  union all
  select
    u.user_id,
    e.sign * u.messages, e.sign * u.turns, e.sign * u.calls, e.sign * u.failed_calls,
    e.sign * u.prompt_tokens, e.sign * u.completion_tokens, e.sign * u.total_tokens,
    e.sign * u.cache_read_tokens, e.sign * u.cache_write_tokens, e.sign * u.reasoning_tokens,
    e.sign * u.cost, e.sign * u.unpriced_calls, e.sign * u.unknown_usage
  from first_edge as e
    cross join analytics.user_usage(
      (select f.since from first_edge as f), (select f.until from first_edge as f)
    ) as u
  union all
  select
    u.user_id,
    e.sign * u.messages, e.sign * u.turns, e.sign * u.calls, e.sign * u.failed_calls,
    e.sign * u.prompt_tokens, e.sign * u.completion_tokens, e.sign * u.total_tokens,
    e.sign * u.cache_read_tokens, e.sign * u.cache_write_tokens, e.sign * u.reasoning_tokens,
    e.sign * u.cost, e.sign * u.unpriced_calls, e.sign * u.unknown_usage
  from last_edge as e
    cross join analytics.user_usage(
      (select l.since from last_edge as l), (select l.until from last_edge as l)
    ) as u
$$;

comment on function analytics.user_totals(timestamptz, timestamptz) is
  'Usage by user between two moments (the second one excluded), in rows to sum up; exact now, for days of any time zone.';

-- From the candidates (305), which are all there is to look at: unless more of them were
-- deleted or became cheaper than the next fold can know of. Then from all conversations.
create or replace view analytics.dearest_conversations_live as
with changed as materialized (
  select distinct i.id
  from analytics.deltas as d
    cross join lateral unnest(d.conversation_ids) as i (id)
),

candidates as materialized (
  select d.conversation_id as id, d.total_cost
  from analytics.dearest_candidates as d
  where d.conversation_id not in (select g.id from changed as g)
  union all
  select g.id, c.total_cost
  from changed as g
    -- With a limit: looked up one by one, never by reading all conversations.
    cross join lateral (
      select t.total_cost from chatter.conversations as t where t.id = g.id limit 1
    ) as c
  where c.total_cost > 0
),

enough as materialized (
  select
    s.dearest_cost = 0 or (
      select count(*)
      from candidates as c
      where c.total_cost > s.dearest_cost or c.total_cost = s.dearest_cost and c.id <= s.dearest_id
    ) >= 1000 as are
  from analytics.state as s
),

places as (
  select x.id, row_number() over (order by x.total_cost desc, x.id) as place
  from (
    select c.id, c.total_cost from candidates as c where (select e.are from enough as e)
    union all
    select c.id, c.total_cost
    from chatter.conversations as c
    where c.total_cost > 0 and not (select e.are from enough as e)
  ) as x
  order by x.total_cost desc, x.id
  limit 1000
)

select
  p.place, c.id as conversation_id, c.external_id, c.user_id, c.message_count, c.prompt_tokens,
  c.completion_tokens, c.total_tokens, c.total_cost, c.unpriced_calls, c.last_message_at
from places as p
  cross join lateral (select t.* from chatter.conversations as t where t.id = p.id limit 1) as c
order by p.place;

drop materialized view analytics.tool_usage;
drop view analytics.tool_usage_live;

create view analytics.tool_usage_live as
select
  b.day, b.tool_name,
  sum(b.calls)::bigint as calls,
  coalesce(sum(b.calls) filter (where b.status = 'completed'), 0)::bigint as completed,
  coalesce(sum(b.calls) filter (where b.status = 'failed'), 0)::bigint as failed,
  coalesce(sum(b.calls) filter (where b.status = 'requested'), 0)::bigint as never_run,
  (sum(b.duration_ms) / max(b.total))::double precision as mean_ms,
  min(analytics.bin_ms(b.bin)) filter (where b.bin >= 0 and b.upto >= 0.95 * b.total) as p95_ms
from (
  select
    u.day, u.tool_name, u.status, u.bin, u.calls, u.duration_ms,
    -- Those whose time is known.
    sum(u.calls) filter (where u.bin >= 0) over (partition by u.day, u.tool_name) as total,
    sum(u.calls) filter (where u.bin >= 0) over (partition by u.day, u.tool_name order by u.bin) as upto
  from analytics.tool_day_live as u
) as b
group by b.day, b.tool_name;

create materialized view analytics.tool_usage as
select v.*, chatter.clock() as as_of from analytics.tool_usage_live as v
with no data;

create unique index tool_usage_day_tool_name_key on analytics.tool_usage (day, tool_name);

comment on materialized view analytics.tool_usage is 'Tool calls by UTC day and tool: asked for, completed, failed, never run, and how long they took.';
comment on view analytics.tool_usage_live is 'Tool calls by UTC day and tool: asked for, completed, failed, never run, and how long they took. Exact now.';
comment on index analytics.tool_usage_day_tool_name_key is 'For refreshing without blocking readers.';

comment on column analytics.tool_15min_live.bucket is 'Quarter of an hour in which the call began; its run, if it never did.';
comment on column analytics.tool_15min_live.tool_name is 'Which tool.';
comment on column analytics.tool_15min_live.status is 'What became of the calls.';
comment on column analytics.tool_15min_live.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
comment on column analytics.tool_15min_live.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_15min_live.duration_ms is 'How long they took, all together, in milliseconds.';
comment on column analytics.tool_day_live.day is 'UTC day on which the call began; its run, if it never did.';
comment on column analytics.tool_day_live.tool_name is 'Which tool.';
comment on column analytics.tool_day_live.status is 'What became of the calls.';
comment on column analytics.tool_day_live.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
comment on column analytics.tool_day_live.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_day_live.duration_ms is 'How long they took, all together, in milliseconds.';
comment on column analytics.tool_usage.day is 'UTC day on which the call began; its run, if it never did.';
comment on column analytics.tool_usage.tool_name is 'Which tool.';
comment on column analytics.tool_usage.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_usage.completed is 'Tool calls that succeeded.';
comment on column analytics.tool_usage.failed is 'Tool calls that failed.';
comment on column analytics.tool_usage.never_run is 'Tool calls that were asked for and never seen to run.';
comment on column analytics.tool_usage.mean_ms is 'Mean run of the tool, in milliseconds.';
comment on column analytics.tool_usage.p95_ms is '95 of 100 calls took no longer, in milliseconds, at most 4.5 % off.';
comment on column analytics.tool_usage.as_of is 'When the view was refreshed: what came later is in its *_live twin.';
comment on column analytics.tool_usage_live.day is 'UTC day on which the call began; its run, if it never did.';
comment on column analytics.tool_usage_live.tool_name is 'Which tool.';
comment on column analytics.tool_usage_live.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_usage_live.completed is 'Tool calls that succeeded.';
comment on column analytics.tool_usage_live.failed is 'Tool calls that failed.';
comment on column analytics.tool_usage_live.never_run is 'Tool calls that were asked for and never seen to run.';
comment on column analytics.tool_usage_live.mean_ms is 'Mean run of the tool, in milliseconds.';
comment on column analytics.tool_usage_live.p95_ms is '95 of 100 calls took no longer, in milliseconds, at most 4.5 % off.';
comment on column analytics.tools_recounted.bucket is 'Quarter of an hour in which the call began; its run, if it never did.';
comment on column analytics.tools_recounted.tool_name is 'Which tool.';
comment on column analytics.tools_recounted.status is 'What became of the calls.';
comment on column analytics.tools_recounted.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
comment on column analytics.tools_recounted.calls is 'Tool calls that a model asked for.';
comment on column analytics.tools_recounted.duration_ms is 'How long they took, all together, in milliseconds.';
comment on column analytics.usage_user_month_live.month is 'First day of the UTC month in which the tokens were spent.';
comment on column analytics.usage_user_month_live.user_id is 'Whose conversation; NULL when the app did not say.';
comment on column analytics.usage_user_month_live.messages is 'Rows of any kind.';
comment on column analytics.usage_user_month_live.turns is 'What people wrote or were shown.';
comment on column analytics.usage_user_month_live.calls is 'Model calls, failed ones included.';
comment on column analytics.usage_user_month_live.failed_calls is 'Model calls that failed or were cancelled.';
comment on column analytics.usage_user_month_live.prompt_tokens is 'Prompt tokens, cached ones included.';
comment on column analytics.usage_user_month_live.completion_tokens is 'Completion tokens, reasoning included.';
comment on column analytics.usage_user_month_live.total_tokens is 'Tokens as the provider totals them.';
comment on column analytics.usage_user_month_live.cache_read_tokens is 'Prompt tokens read from a cache.';
comment on column analytics.usage_user_month_live.cache_write_tokens is 'Prompt tokens written to a cache.';
comment on column analytics.usage_user_month_live.reasoning_tokens is 'Completion tokens spent on reasoning.';
comment on column analytics.usage_user_month_live.cost is 'US dollars of the calls whose price is known.';
comment on column analytics.usage_user_month_live.unpriced_calls is 'Model calls of unknown cost.';
comment on column analytics.usage_user_month_live.unknown_usage is 'Model calls whose provider reported no usage.';

-- What is there already.
insert into analytics.usage_user_month (
  month, user_id,
  messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
  cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage
)
select
  date_trunc('month', u.day::timestamp)::date, u.user_id,
  sum(u.messages), sum(u.turns), sum(u.calls), sum(u.failed_calls), sum(u.prompt_tokens),
  sum(u.completion_tokens), sum(u.total_tokens), sum(u.cache_read_tokens),
  sum(u.cache_write_tokens), sum(u.reasoning_tokens), sum(u.cost), sum(u.unpriced_calls),
  sum(u.unknown_usage)
from analytics.usage_user_day as u
group by 1, u.user_id;

select analytics.rebuild_tools();
select analytics.rebuild_dearest();

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
        'analytics.user_totals(timestamptz, timestamptz), '
        'analytics.usage_between(timestamptz, timestamptz), '
        'analytics.latency_between(timestamptz, timestamptz), '
        'analytics.tools_between(timestamptz, timestamptz), '
        'analytics.usage_steps(timestamptz, timestamptz, text, text), '
        'analytics.grain(timestamptz, timestamptz, text) to %I',
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

-- What it warns of was said when the roles were first granted.
set local client_min_messages = error;
select chatter.grant_roles();
reset client_min_messages;
