-- Coarser rollups, so that questions about a long time stay cheap: hours and UTC days
-- without a user, UTC days of latency. Functions choose among them. usage_hourly, a view
-- until now, is a table. Everything is counted anew from the messages, those included that
-- were written before there were any rollups.

drop view analytics.usage_hourly;
drop view analytics.usage_hourly_live;

create table analytics.usage_hourly (
  hour timestamptz not null,
  workflow_name text not null,
  provider text not null,
  model text not null,
  kind text not null,
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
  constraint usage_hourly_pkey primary key (hour, workflow_name, provider, model, kind)
)
with (fillfactor = 80);

create table analytics.usage_day (
  day date not null,
  workflow_name text not null,
  provider text not null,
  model text not null,
  kind text not null,
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
  constraint usage_day_pkey primary key (day, workflow_name, provider, model, kind)
)
with (fillfactor = 80);

create table analytics.latency_day (
  day date not null,
  provider text not null,
  model text not null,
  measure text not null,
  bin smallint not null,
  calls bigint not null,
  constraint latency_day_pkey primary key (day, provider, model, measure, bin),
  constraint latency_day_measure_check check (measure in ('response', 'first_token'))
)
with (fillfactor = 80);

-- Whose a conversation was, and of which workflow a run, that is gone: a statement may delete
-- messages together with their parents, and the figures are taken away where they were added.
create table analytics.former_parents (
  id uuid not null,
  user_id uuid,
  workflow_name text,
  constraint former_parents_pkey primary key (id)
);

create function analytics.tg_keep_former_parent() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
  if tg_table_name = 'conversations' then
    insert into analytics.former_parents (id, user_id) values (old.id, old.user_id)
    on conflict (id) do update set user_id = excluded.user_id;
  else
    insert into analytics.former_parents (id, workflow_name) values (old.id, old.workflow_name)
    on conflict (id) do update set workflow_name = excluded.workflow_name;
  end if;
  return old;
end
$$;

-- Before and per row: the triggers of messages, which look, come after all rows are gone.
create trigger _050_keep_former_parent
  before delete on chatter.conversations
  for each row execute function analytics.tg_keep_former_parent();

create trigger _050_keep_former_parent
  before delete on chatter.workflow_executions
  for each row execute function analytics.tg_keep_former_parent();

comment on table analytics.former_parents is 'Deleted conversations and runs: whose figures their messages were.';
comment on column analytics.former_parents.id is 'Of the conversation or the run.';
comment on column analytics.former_parents.user_id is 'Whose conversation it was; NULL when the app did not say, or for a run.';
comment on column analytics.former_parents.workflow_name is 'Of which workflow the run was; NULL for a conversation.';
comment on function analytics.tg_keep_former_parent() is 'Remembers whose a deleted conversation or run was.';
comment on trigger _050_keep_former_parent on chatter.conversations is 'Remembers whose it was.';
comment on trigger _050_keep_former_parent on chatter.workflow_executions is 'Remembers of which workflow it was.';

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
    sign, response_bins, first_token_bins
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
      filter (where r.model_call and r.time_to_first_token_ms is not null)
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

comment on table analytics.usage_hourly is 'Rollup: usage by hour (UTC), workflow, provider, model and kind of row.';
comment on column analytics.usage_hourly.hour is 'Hour (UTC) in which the tokens were spent.';
comment on column analytics.usage_hourly.workflow_name is 'Of the run; empty without one.';
comment on column analytics.usage_hourly.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.usage_hourly.model is 'Model of the call; empty where none is named.';
comment on column analytics.usage_hourly.kind is 'turn or step.';
comment on column analytics.usage_hourly.messages is 'Rows of any kind.';
comment on column analytics.usage_hourly.turns is 'What people wrote or were shown.';
comment on column analytics.usage_hourly.calls is 'Model calls, failed ones included.';
comment on column analytics.usage_hourly.failed_calls is 'Model calls that failed or were cancelled.';
comment on column analytics.usage_hourly.prompt_tokens is 'Prompt tokens, cached ones included.';
comment on column analytics.usage_hourly.completion_tokens is 'Completion tokens, reasoning included.';
comment on column analytics.usage_hourly.total_tokens is 'Tokens as the provider totals them.';
comment on column analytics.usage_hourly.cache_read_tokens is 'Prompt tokens read from a cache.';
comment on column analytics.usage_hourly.cache_write_tokens is 'Prompt tokens written to a cache.';
comment on column analytics.usage_hourly.reasoning_tokens is 'Completion tokens spent on reasoning.';
comment on column analytics.usage_hourly.cost is 'US dollars of the calls whose price is known.';
comment on column analytics.usage_hourly.unpriced_calls is 'Model calls of unknown cost.';
comment on column analytics.usage_hourly.unknown_usage is 'Model calls whose provider reported no usage.';
comment on table analytics.usage_day is 'Rollup: usage by UTC day, workflow, provider, model and kind of row.';
comment on column analytics.usage_day.day is 'UTC day in which the tokens were spent.';
comment on column analytics.usage_day.workflow_name is 'Of the run; empty without one.';
comment on column analytics.usage_day.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.usage_day.model is 'Model of the call; empty where none is named.';
comment on column analytics.usage_day.kind is 'turn or step.';
comment on column analytics.usage_day.messages is 'Rows of any kind.';
comment on column analytics.usage_day.turns is 'What people wrote or were shown.';
comment on column analytics.usage_day.calls is 'Model calls, failed ones included.';
comment on column analytics.usage_day.failed_calls is 'Model calls that failed or were cancelled.';
comment on column analytics.usage_day.prompt_tokens is 'Prompt tokens, cached ones included.';
comment on column analytics.usage_day.completion_tokens is 'Completion tokens, reasoning included.';
comment on column analytics.usage_day.total_tokens is 'Tokens as the provider totals them.';
comment on column analytics.usage_day.cache_read_tokens is 'Prompt tokens read from a cache.';
comment on column analytics.usage_day.cache_write_tokens is 'Prompt tokens written to a cache.';
comment on column analytics.usage_day.reasoning_tokens is 'Completion tokens spent on reasoning.';
comment on column analytics.usage_day.cost is 'US dollars of the calls whose price is known.';
comment on column analytics.usage_day.unpriced_calls is 'Model calls of unknown cost.';
comment on column analytics.usage_day.unknown_usage is 'Model calls whose provider reported no usage.';
comment on table analytics.latency_day is 'Rollup: histograms of latency by UTC day, provider and model.';
comment on column analytics.latency_day.day is 'UTC day on which the call ended.';
comment on column analytics.latency_day.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.latency_day.model is 'Model of the call; empty where none is named.';
comment on column analytics.latency_day.measure is 'response, or first_token.';
comment on column analytics.latency_day.bin is 'See analytics.latency_bin().';
comment on column analytics.latency_day.calls is 'Model calls in the bin.';

create or replace function analytics.fold(p_limit integer default 10000) returns bigint
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_taken bigint;
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

  select count(*) into v_taken from taken;

  if v_taken > 0 then
    update analytics.state as s set folded_at = chatter.clock();
  end if;
  return v_taken;
end
$$;

-- What the deltas of all messages would be, counted anew: for `chatter check` and rebuild().
create view analytics.usage_recounted as
select
  analytics.quarter_hour(r.created_at) as bucket,
  c.user_id,
  coalesce(e.workflow_name, '') as workflow_name,
  coalesce(r.provider_used, '') as provider,
  coalesce(r.model_used, '') as model,
  r.kind,
  count(*) as messages,
  count(*) filter (where r.kind = 'turn') as turns,
  count(*) filter (where r.model_call) as calls,
  count(*) filter (where r.model_call and r.status <> 'completed') as failed_calls,
  coalesce(sum(r.prompt_tokens), 0)::bigint as prompt_tokens,
  coalesce(sum(r.completion_tokens), 0)::bigint as completion_tokens,
  coalesce(sum(r.total_tokens), 0)::bigint as total_tokens,
  coalesce(sum(r.cache_read_tokens), 0)::bigint as cache_read_tokens,
  coalesce(sum(r.cache_write_tokens), 0)::bigint as cache_write_tokens,
  coalesce(sum(r.reasoning_tokens), 0)::bigint as reasoning_tokens,
  coalesce(sum(r.cost), 0) as cost,
  count(*) filter (where r.model_call and r.cost is null) as unpriced_calls,
  count(*) filter (where r.model_call and r.usage_status is not distinct from 'unknown') as unknown_usage,
  array_agg(analytics.latency_bin(r.response_time_ms))
    filter (where r.model_call and r.response_time_ms is not null) as response_bins,
  array_agg(analytics.latency_bin(r.time_to_first_token_ms))
    filter (where r.model_call and r.time_to_first_token_ms is not null) as first_token_bins
from chatter.messages as r
  join chatter.conversations as c on c.id = r.conversation_id
  left join chatter.workflow_executions as e on e.id = r.execution_id
group by 1, 2, 3, 4, 5, 6;

comment on view analytics.usage_recounted is
  'Usage counted anew from all messages, by quarter of an hour and everything that rollups know; slow.';

-- Counts all rollups anew from the messages; writers wait meanwhile, readers don't. The
-- rollups never need it, unless triggers were switched off. Returns the number of messages.
create function analytics.rebuild() returns bigint
language plpgsql volatile
set search_path = ''
as $$
declare
  v_messages bigint;
begin
  lock table chatter.messages in share row exclusive mode;
  perform pg_catalog.pg_advisory_xact_lock(chatter.bell() + 1);
  delete from analytics.deltas;
  delete from analytics.usage_15min;
  delete from analytics.usage_hourly;
  delete from analytics.usage_day;
  delete from analytics.usage_user_day;
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
  return v_messages;
end
$$;

comment on function analytics.rebuild() is 'Counts the rollups anew from all messages; for the owner, and slow.';

create view analytics.usage_hourly_live as
select
  x.hour, x.workflow_name, x.provider, x.model, x.kind,
  sum(x.messages)::bigint as messages,
  sum(x.turns)::bigint as turns,
  sum(x.calls)::bigint as calls,
  sum(x.failed_calls)::bigint as failed_calls,
  sum(x.prompt_tokens)::bigint as prompt_tokens,
  sum(x.completion_tokens)::bigint as completion_tokens,
  sum(x.total_tokens)::bigint as total_tokens,
  sum(x.cache_read_tokens)::bigint as cache_read_tokens,
  sum(x.cache_write_tokens)::bigint as cache_write_tokens,
  sum(x.reasoning_tokens)::bigint as reasoning_tokens,
  sum(x.cost)::numeric as cost,
  sum(x.unpriced_calls)::bigint as unpriced_calls,
  sum(x.unknown_usage)::bigint as unknown_usage
from (
  select
    r.hour, r.workflow_name, r.provider, r.model, r.kind,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens, r.completion_tokens,
    r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost,
    r.unpriced_calls, r.unknown_usage
  from analytics.usage_hourly as r
  union all
  select
    date_trunc('hour', d.bucket, 'UTC'), d.workflow_name, d.provider, d.model, d.kind,
    d.messages, d.turns, d.calls, d.failed_calls, d.prompt_tokens, d.completion_tokens,
    d.total_tokens, d.cache_read_tokens, d.cache_write_tokens, d.reasoning_tokens, d.cost,
    d.unpriced_calls, d.unknown_usage
  from analytics.deltas as d
) as x
group by x.hour, x.workflow_name, x.provider, x.model, x.kind
having sum(x.messages) <> 0;

comment on view analytics.usage_hourly_live is 'Usage by hour (UTC), workflow, provider, model and kind of row; exact now.';

create view analytics.usage_day_live as
select
  x.day, x.workflow_name, x.provider, x.model, x.kind,
  sum(x.messages)::bigint as messages,
  sum(x.turns)::bigint as turns,
  sum(x.calls)::bigint as calls,
  sum(x.failed_calls)::bigint as failed_calls,
  sum(x.prompt_tokens)::bigint as prompt_tokens,
  sum(x.completion_tokens)::bigint as completion_tokens,
  sum(x.total_tokens)::bigint as total_tokens,
  sum(x.cache_read_tokens)::bigint as cache_read_tokens,
  sum(x.cache_write_tokens)::bigint as cache_write_tokens,
  sum(x.reasoning_tokens)::bigint as reasoning_tokens,
  sum(x.cost)::numeric as cost,
  sum(x.unpriced_calls)::bigint as unpriced_calls,
  sum(x.unknown_usage)::bigint as unknown_usage
from (
  select
    r.day, r.workflow_name, r.provider, r.model, r.kind,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens, r.completion_tokens,
    r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost,
    r.unpriced_calls, r.unknown_usage
  from analytics.usage_day as r
  union all
  select
    (d.bucket at time zone 'UTC')::date, d.workflow_name, d.provider, d.model, d.kind,
    d.messages, d.turns, d.calls, d.failed_calls, d.prompt_tokens, d.completion_tokens,
    d.total_tokens, d.cache_read_tokens, d.cache_write_tokens, d.reasoning_tokens, d.cost,
    d.unpriced_calls, d.unknown_usage
  from analytics.deltas as d
) as x
group by x.day, x.workflow_name, x.provider, x.model, x.kind
having sum(x.messages) <> 0;

comment on view analytics.usage_day_live is 'Usage by UTC day, workflow, provider, model and kind of row; exact now.';

create view analytics.latency_day_live as
select x.day, x.provider, x.model, x.measure, x.bin, sum(x.calls)::bigint as calls
from (
  select l.day, l.provider, l.model, l.measure, l.bin, l.calls
  from analytics.latency_day as l
  union all
  select (d.bucket at time zone 'UTC')::date, d.provider, d.model, 'response', b.bin, d.sign
  from analytics.deltas as d
    cross join lateral unnest(d.response_bins) as b (bin)
  union all
  select (d.bucket at time zone 'UTC')::date, d.provider, d.model, 'first_token', b.bin, d.sign
  from analytics.deltas as d
    cross join lateral unnest(d.first_token_bins) as b (bin)
) as x
group by x.day, x.provider, x.model, x.measure, x.bin
having sum(x.calls) <> 0;

comment on view analytics.latency_day_live is 'Histograms of latency by UTC day, provider and model; exact now.';

-- What the dashboard and sql/analytics stand on. Rows of a period, not summed up (whoever asks
-- sums once, over the columns that are asked for), each from the coarsest rollup that is
-- exact there, and from the deltas that wait. Plain SQL without a SET clause, so that
-- Postgres inlines it.

-- For sums over the whole period: whole UTC days from usage_day, and the rest of the first
-- and the last day from usage_15min.
create function analytics.usage_between(p_since timestamptz, p_until timestamptz)
returns table (
  workflow_name text, provider text, model text, kind text, messages bigint, turns bigint, calls
  bigint, failed_calls bigint, prompt_tokens bigint, completion_tokens bigint, total_tokens bigint,
  cache_read_tokens bigint, cache_write_tokens bigint, reasoning_tokens bigint, cost numeric,
  unpriced_calls bigint, unknown_usage bigint
)
language sql stable
as $$
  with days as (
    select
      -- Midnights (UTC): of the first whole day, and after the last one.
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first,
      date_bin('1 day', p_until, '2000-01-01 00:00:00+00') as last
  )

  select
    u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from days as d
    join analytics.usage_day as u
      on u.day >= (d.first at time zone 'UTC')::date and u.day < (d.last at time zone 'UTC')::date
  union all
  select
    u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from days as d
    cross join lateral (
      -- If no whole day lies between, the first one is all there is.
      values (p_since, least(p_until, greatest(d.first, p_since))),
        (greatest(d.last, least(p_until, greatest(d.first, p_since))), p_until)
    ) as edge (since, until)
    join analytics.usage_15min as u on u.bucket >= edge.since and u.bucket < edge.until
  union all
  select
    u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.deltas as u
  where u.bucket >= p_since and u.bucket < p_until
$$;

comment on function analytics.usage_between(timestamptz, timestamptz) is
  'Usage between two moments (the second one excluded), to the quarter of an hour, in rows to sum up; exact now.';

-- The coarsest rollup whose buckets cross no boundary of a chart: neither of the period nor
-- of a day of its time zone. Days end at other hours in summer, so all of them are asked, as
-- far as there is anything in the books.
create function analytics.grain(
  p_since timestamptz, p_until timestamptz, p_time_zone text, p_step text
) returns text
language sql stable
as $$
  select
    case
      when p_step = 'day' and bool_and(b.at = date_trunc('day', b.at, 'UTC')) then 'day'
      when bool_and(b.at = date_trunc('hour', b.at, 'UTC')) then 'hour'
      else 'quarter'
    end
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

comment on function analytics.grain(timestamptz, timestamptz, text, text) is
  'day, hour or quarter: the coarsest rollup that is exact for a chart by day or hour of a time zone.';

-- For charts: p_step is day or hour, of a time zone.
create function analytics.usage_steps(
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
    select analytics.grain(p_since, p_until, p_time_zone, p_step) as grain
  )

  select
    u.day::timestamp at time zone 'UTC', u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from g
    join analytics.usage_day as u
      on g.grain = 'day' and u.day >= (p_since at time zone 'UTC')::date
      and u.day < (p_until at time zone 'UTC')::date
  union all
  select
    u.hour, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from g
    join analytics.usage_hourly as u on g.grain = 'hour' and u.hour >= p_since and u.hour < p_until
  union all
  select
    u.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from g
    join analytics.usage_15min as u
      on g.grain = 'quarter' and u.bucket >= p_since and u.bucket < p_until
  union all
  select
    u.bucket, u.workflow_name, u.provider, u.model, u.kind,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
    u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
    u.unpriced_calls, u.unknown_usage
  from analytics.deltas as u
  where u.bucket >= p_since and u.bucket < p_until
$$;

comment on function analytics.usage_steps(timestamptz, timestamptz, text, text) is
  'Usage between two moments in rows to sum up by day or hour (p_step) of a time zone; exact now.';

-- Histograms of latency: whole UTC days from latency_day, the rest from latency_hour.
create function analytics.latency_between(p_since timestamptz, p_until timestamptz)
returns table (provider text, model text, measure text, bin smallint, calls bigint)
language sql stable
as $$
  with days as (
    select
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first,
      date_bin('1 day', p_until, '2000-01-01 00:00:00+00') as last
  )

  select l.provider, l.model, l.measure, l.bin, l.calls
  from days as d
    join analytics.latency_day as l
      on l.day >= (d.first at time zone 'UTC')::date and l.day < (d.last at time zone 'UTC')::date
  union all
  select l.provider, l.model, l.measure, l.bin, l.calls
  from days as d
    cross join lateral (
      values (p_since, least(p_until, greatest(d.first, p_since))),
        (greatest(d.last, least(p_until, greatest(d.first, p_since))), p_until)
    ) as edge (since, until)
    join analytics.latency_hour as l on l.hour >= edge.since and l.hour < edge.until
  union all
  select d.provider, d.model, 'response', b.bin, d.sign
  from analytics.deltas as d
    cross join lateral unnest(d.response_bins) as b (bin)
  where date_trunc('hour', d.bucket, 'UTC') >= p_since and date_trunc('hour', d.bucket, 'UTC') < p_until
  union all
  select d.provider, d.model, 'first_token', b.bin, d.sign
  from analytics.deltas as d
    cross join lateral unnest(d.first_token_bins) as b (bin)
  where date_trunc('hour', d.bucket, 'UTC') >= p_since and date_trunc('hour', d.bucket, 'UTC') < p_until
$$;

comment on function analytics.latency_between(timestamptz, timestamptz) is
  'Histograms of latency of the hours (UTC) that begin between two moments, in rows to sum up; exact now.';

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
      -- Midnights (UTC): of the first whole day, and after the last one.
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first,
      date_bin('1 day', p_until, '2000-01-01 00:00:00+00') as last
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
    1, (m.kind = 'turn')::integer, m.model_call::integer,
    (m.model_call and m.status <> 'completed')::integer,
    coalesce(m.prompt_tokens, 0), coalesce(m.completion_tokens, 0), coalesce(m.total_tokens, 0),
    coalesce(m.cache_read_tokens, 0), coalesce(m.cache_write_tokens, 0),
    coalesce(m.reasoning_tokens, 0), coalesce(m.cost, 0),
    (m.model_call and m.cost is null)::integer,
    (m.model_call and m.usage_status is not distinct from 'unknown')::integer
  from chatter.messages as m
    join chatter.conversations as c on c.id = m.conversation_id
  -- Written out, without `days`, so that the planner sees how little it is.
  where
    m.created_at >= p_since
    and m.created_at < least(
      p_until,
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00')
    )
    -- If no whole day lies between, that is all there is.
    or m.created_at >= greatest(
      date_bin('1 day', p_until, '2000-01-01 00:00:00+00'),
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00')
    )
    and m.created_at < p_until
$$;

comment on function analytics.user_usage(timestamptz, timestamptz) is
  'Usage by user, provider and model between two moments (the second one excluded), in rows to sum up; exact now, for days of any time zone.';

create or replace view analytics.usage_daily_live as
select
  u.day,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_day_live as u
group by 1;

create or replace view analytics.usage_by_model_live as
select
  u.day, u.provider, u.model,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_day_live as u
where u.calls <> 0
group by 1, u.provider, u.model;

create or replace view analytics.usage_by_workflow_live as
select
  u.day, u.workflow_name,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_day_live as u
group by 1, u.workflow_name;

create or replace view analytics.latency_by_model_live as
select
  b.day, b.provider, b.model, b.measure, max(b.total)::bigint as calls,
  min(analytics.bin_ms(b.bin)) filter (where b.upto >= 0.50 * b.total) as p50_ms,
  min(analytics.bin_ms(b.bin)) filter (where b.upto >= 0.95 * b.total) as p95_ms,
  min(analytics.bin_ms(b.bin)) filter (where b.upto >= 0.99 * b.total) as p99_ms
from (
  select
    x.day, x.provider, x.model, x.measure, x.bin,
    sum(x.calls) over (partition by x.day, x.provider, x.model, x.measure) as total,
    sum(x.calls) over (partition by x.day, x.provider, x.model, x.measure order by x.bin) as upto
  from (
    select
      l.day, l.provider, l.model, l.measure, l.bin,
      sum(l.calls) as calls
    from analytics.latency_day_live as l
    group by 1, l.provider, l.model, l.measure, l.bin
  ) as x
) as b
group by b.day, b.provider, b.model, b.measure;

create or replace view analytics.cache_usage_live as
select
  u.day, u.provider, u.model,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  round(sum(u.cache_read_tokens) / nullif(sum(u.prompt_tokens), 0), 4) as read_share
from analytics.usage_day_live as u
where u.cache_read_tokens <> 0 or u.cache_write_tokens <> 0
group by 1, u.provider, u.model;

create or replace view analytics.unpriced_usage_live as
select
  u.day, u.provider, u.model,
  sum(u.calls)::bigint as calls,
  sum(u.unpriced_calls)::bigint as unpriced_calls,
  sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_day_live as u
group by 1, u.provider, u.model
having sum(u.unpriced_calls) <> 0 or sum(u.unknown_usage) <> 0;

-- Large views less often.
create or replace function analytics.refresh(p_force boolean default false) returns setof text
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_view record;
  v_begin timestamptz;
  v_names text[] := '{}';
  v_times double precision[] := '{}';
begin
  -- Two refreshes of one view would wait for each other: one at a time for all.
  if not pg_catalog.pg_try_advisory_xact_lock(chatter.bell() + 2) then
    return;
  end if;
  for v_view in
    select v.name, m.ispopulated
    from analytics.views as v
      join pg_catalog.pg_matviews as m on m.schemaname = 'analytics' and m.matviewname = v.name
      cross join analytics.state as s
    where p_force
      or not m.ispopulated
      or (
        -- Large ones less often: a refresh may take a tenth of the time at most.
        v.refreshed_at + greatest(v.refresh_every, coalesce(v.refresh_ms, 0) * interval '10 milliseconds')
          <= chatter.clock()
        -- Of the beginning of the refresh: what was folded meanwhile is not in it.
        and v.refreshed_at <= s.folded_at
      )
    order by v.name
  loop
    v_begin := pg_catalog.clock_timestamp();
    if v_view.ispopulated then
      execute pg_catalog.format('refresh materialized view concurrently analytics.%I', v_view.name);
    else
      execute pg_catalog.format('refresh materialized view analytics.%I', v_view.name);
    end if;
    v_names := v_names || v_view.name;
    v_times := v_times || extract(epoch from pg_catalog.clock_timestamp() - v_begin) * 1000;
  end loop;

  if v_names <> '{}' then
    update analytics.views as v
    set refreshed_at = pg_catalog.now(), refresh_ms = d.ms
    from unnest(v_names, v_times) as d (name, ms)
    where v.name = d.name;
  end if;
  return query select unnest(v_names);
end
$$;

comment on column analytics.views.refresh_every is 'No sooner than this after the last refresh, nor than ten times what that took.';

-- A column of one name means one thing in every view: said once, here.
do $do$
declare
  v_column record;
begin
  for v_column in
    select c.relname, a.attname, d.description
    from pg_catalog.pg_class as c
      join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
      left join (values
        ('as_of', 'When the view was refreshed: what came later is in its *_live twin.'),
        ('bin', 'See analytics.latency_bin().'),
        ('bucket', 'Quarter of an hour in which the tokens were spent.'),
        ('cache_read_tokens', 'Prompt tokens read from a cache.'),
        ('cache_write_tokens', 'Prompt tokens written to a cache.'),
        ('calls', 'Model calls, failed ones included.'),
        ('completed', 'Tool calls that succeeded.'),
        ('completion_tokens', 'Completion tokens, reasoning included.'),
        ('conversation_id', 'Which conversation.'),
        ('correlation_id', 'One id through request, run, calls and events.'),
        ('cost', 'US dollars of the calls whose price is known.'),
        ('day', 'UTC day in which the tokens were spent.'),
        ('elapsed', 'How long the run has been going on.'),
        ('external_id', 'The host app''s own id.'),
        ('failed', 'Tool calls that failed.'),
        ('failed_calls', 'Model calls that failed or were cancelled.'),
        ('first_token_bins', 'A histogram bin for each call''s time to first token.'),
        ('hour', 'Hour (UTC) in which the tokens were spent.'),
        ('id', 'The execution.'),
        ('kind', 'turn or step.'),
        ('last_message_at', 'Newest message.'),
        ('max_ms', 'Longest run of the tool, in milliseconds.'),
        ('mean_ms', 'Mean run of the tool, in milliseconds.'),
        ('measure', 'response, or first_token.'),
        ('message_count', 'Turns of the conversation.'),
        ('messages', 'Rows of any kind.'),
        ('model', 'Model of the call; empty where none is named.'),
        ('model_calls', 'Model calls of the run so far.'),
        ('never_run', 'Tool calls that were asked for and never seen to run.'),
        ('p50_ms', 'Half of the calls took no longer, in milliseconds, at most 4.5 % off.'),
        ('p95_ms', '95 of 100 calls took no longer, in milliseconds, at most 4.5 % off.'),
        ('p99_ms', '99 of 100 calls took no longer, in milliseconds, at most 4.5 % off.'),
        ('period', 'day, week (from Monday) or month.'),
        ('place', '1 is the dearest.'),
        ('prompt_tokens', 'Prompt tokens, cached ones included.'),
        ('provider', 'Provider of the call; empty where none is named.'),
        ('read_share', 'Share of the prompt tokens that came from a cache, 0 to 1.'),
        ('reasoning_tokens', 'Completion tokens spent on reasoning.'),
        ('response_bins', 'A histogram bin for each call''s response time.'),
        ('started_at', 'When the run began.'),
        ('starts', 'First day (UTC) of the period.'),
        ('tool_calls', 'Tool calls of the run so far.'),
        ('tool_name', 'Which tool.'),
        ('total_cost', 'US dollars so far.'),
        ('total_tokens', 'Tokens as the provider totals them.'),
        ('turns', 'What people wrote or were shown.'),
        ('unknown_usage', 'Model calls whose provider reported no usage.'),
        ('unpriced_calls', 'Model calls of unknown cost.'),
        ('user_id', 'Whose conversation; NULL when the app did not say.'),
        ('users', 'Users that had a message.'),
        ('workflow_name', 'Of the run; empty without one.')
      ) as d (name, description) on d.name = a.attname
    where c.relnamespace = 'analytics'::regnamespace and c.relkind in ('v', 'm')
  loop
    if v_column.description is null then
      raise exception 'analytics.%.% is described nowhere', v_column.relname, v_column.attname;
    end if;
    execute pg_catalog.format(
      'comment on column analytics.%I.%I is %L', v_column.relname, v_column.attname, v_column.description
    );
  end loop;
end
$do$;

-- But here.
comment on column analytics.tool_usage.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_usage_live.calls is 'Tool calls that a model asked for.';

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
      chatter.erase_conversation(uuid)
    to chatter_app;
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

  -- Figures over time: everybody who may see anything sees them, the worker keeps them.
  revoke all on all functions in schema analytics from public;
  foreach v_role in array array['chatter_app', 'chatter_reader', 'chatter_worker'] loop
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

select analytics.rebuild();
