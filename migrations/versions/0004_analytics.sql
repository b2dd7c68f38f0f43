-- Analytics: how many tokens and dollars, by when they were spent.
--
-- Writers append signed deltas: a row for each group of rows that a statement wrote,
-- negative for rows that leave. No counter is shared, so writers never meet here. The worker
-- folds deltas into rollups; a rollup plus the deltas that wait is exact at any moment,
-- because both are read in one snapshot and a fold moves them in one transaction.
--
-- Grains, measured on 10 million messages of 5,000 users over 90 days (README): the
-- quarter of an hour knows no user, so that a day of any time zone is a sum of
-- whole buckets (zones are apart by whole quarters). The user's grain is the UTC day: a user
-- writes a few messages an hour, so user x hour x model would hardly be smaller than the
-- messages themselves. Users in other zones are summed from whole UTC days and, at the two
-- edges, from messages (analytics.user_usage).

do $do$
begin
  if pg_catalog.to_regnamespace('analytics') is null then
    create schema analytics;
  end if;
end
$do$;

comment on schema analytics is 'Figures over time: deltas, rollups, materialized views, and for each its exact *_live view.';

-- Histograms that can be added up: eight bins an octave, so that a value read from
-- the middle of a bin is at most 4.5 % off. Bin b holds 2^(b/8) to 2^((b+1)/8) milliseconds.
create function analytics.latency_bin(p_ms double precision) returns smallint
language sql immutable parallel safe
as $$
  select least(255, floor(8 * ln(greatest(p_ms, 1)) / ln(2)))::smallint
$$;

create function analytics.bin_ms(p_bin smallint) returns double precision
language sql immutable parallel safe
as $$
  select power(2, (p_bin + 0.5) / 8)
$$;

create function analytics.quarter_hour(p_at timestamptz) returns timestamptz
language sql immutable parallel safe
as $$
  select date_bin('15 minutes', p_at, '2000-01-01 00:00:00+00')
$$;

comment on function analytics.latency_bin(double precision) is 'The histogram bin of a latency in milliseconds.';
comment on function analytics.bin_ms(smallint) is 'The middle of a histogram bin, in milliseconds: at most 4.5 % off.';
comment on function analytics.quarter_hour(timestamptz) is 'The quarter of an hour that a moment is in.';

create table analytics.deltas (
  id bigint not null generated always as identity,
  bucket timestamptz not null,
  user_id uuid,
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
  sign smallint not null,
  response_bins smallint[],
  first_token_bins smallint[],
  constraint deltas_pkey primary key (id),
  constraint deltas_sign_check check (sign in (-1, 1))
);

create table analytics.usage_15min (
  bucket timestamptz not null,
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
  constraint usage_15min_pkey primary key (bucket, workflow_name, provider, model, kind)
)
with (fillfactor = 80);

create table analytics.usage_user_day (
  day date not null,
  user_id uuid,
  provider text not null,
  model text not null,
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
  constraint usage_user_day_day_user_id_provider_model_key
    unique nulls not distinct (day, user_id, provider, model)
)
with (fillfactor = 80);

create table analytics.latency_hour (
  hour timestamptz not null,
  provider text not null,
  model text not null,
  measure text not null,
  bin smallint not null,
  calls bigint not null,
  constraint latency_hour_pkey primary key (hour, provider, model, measure, bin),
  constraint latency_hour_measure_check check (measure in ('response', 'first_token'))
)
with (fillfactor = 80);

-- One function for every change: the trigger says which rows, and with which sign. An
-- update is its old rows taken away and its new ones added.
create function chatter.tg_messages__deltas() returns trigger
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
    c.user_id,
    coalesce(e.workflow_name, ''),
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
    join chatter.conversations as c on c.id = r.conversation_id
    left join chatter.workflow_executions as e on e.id = r.execution_id
  group by 1, 2, 3, 4, 5, 6;
  return null;
end
$$;

create trigger _400_deltas_insert
  after insert on chatter.messages
  referencing new table as changed_rows
  for each statement execute function chatter.tg_messages__deltas('1');

create trigger _400_deltas_update_old
  after update on chatter.messages
  referencing old table as changed_rows
  for each statement execute function chatter.tg_messages__deltas('-1');

create trigger _401_deltas_update_new
  after update on chatter.messages
  referencing new table as changed_rows
  for each statement execute function chatter.tg_messages__deltas('1');

create trigger _400_deltas_delete
  after delete on chatter.messages
  referencing old table as changed_rows
  for each statement execute function chatter.tg_messages__deltas('-1');

-- Whose the figures are, and of which workflow, is known from the parents: what has figures
-- keeps both.
create function chatter.tg_refuse_change_of_dimension() returns trigger
language plpgsql volatile
set search_path = ''
as $$
begin
  raise exception 'chatter.% can''t be given to another %: its figures are booked already',
    tg_table_name, case tg_table_name when 'conversations' then 'user' else 'workflow' end
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      hint = 'Make a new one and move the messages there.';
end
$$;

create trigger _000_refuse_change_of_user
  before update of user_id on chatter.conversations
  for each row when (old.user_id is distinct from new.user_id)
  execute function chatter.tg_refuse_change_of_dimension();

create trigger _000_refuse_change_of_workflow
  before update of workflow_name on chatter.workflow_executions
  for each row when (old.workflow_name is distinct from new.workflow_name)
  execute function chatter.tg_refuse_change_of_dimension();

-- Where a user's day is cut by another time zone, its messages are found by time. They
-- are written in that order, so a few kilobytes of block ranges do.
create index messages_created_at_idx on chatter.messages using brin (created_at)
with (pages_per_range = 32, autosummarize = on);

-- Moves deltas into the rollups: exactly once, because they are deleted in the same
-- statement; restartable, because it is one transaction. Of two workers one folds: the
-- other gets 0. Returns how many deltas it took.
create function analytics.fold(p_limit integer default 10000) returns bigint
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

  quarters as (
    insert into analytics.usage_15min as u (
      bucket, workflow_name, provider, model, kind,
      messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage
    )
    select
      t.bucket, t.workflow_name, t.provider, t.model, t.kind,
      sum(t.messages)::bigint as messages, sum(t.turns)::bigint as turns,
      sum(t.calls)::bigint as calls, sum(t.failed_calls)::bigint as failed_calls,
      sum(t.prompt_tokens)::bigint as prompt_tokens,
      sum(t.completion_tokens)::bigint as completion_tokens,
      sum(t.total_tokens)::bigint as total_tokens,
      sum(t.cache_read_tokens)::bigint as cache_read_tokens,
      sum(t.cache_write_tokens)::bigint as cache_write_tokens,
      sum(t.reasoning_tokens)::bigint as reasoning_tokens, sum(t.cost)::numeric as cost,
      sum(t.unpriced_calls)::bigint as unpriced_calls,
      sum(t.unknown_usage)::bigint as unknown_usage
    from taken as t
    group by t.bucket, t.workflow_name, t.provider, t.model, t.kind
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

  user_days as (
    insert into analytics.usage_user_day as u (
      day, user_id, provider, model,
      messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
      cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage
    )
    select
      (t.bucket at time zone 'UTC')::date, t.user_id, t.provider, t.model,
      sum(t.messages)::bigint as messages, sum(t.turns)::bigint as turns,
      sum(t.calls)::bigint as calls, sum(t.failed_calls)::bigint as failed_calls,
      sum(t.prompt_tokens)::bigint as prompt_tokens,
      sum(t.completion_tokens)::bigint as completion_tokens,
      sum(t.total_tokens)::bigint as total_tokens,
      sum(t.cache_read_tokens)::bigint as cache_read_tokens,
      sum(t.cache_write_tokens)::bigint as cache_write_tokens,
      sum(t.reasoning_tokens)::bigint as reasoning_tokens, sum(t.cost)::numeric as cost,
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

  latencies as (
    insert into analytics.latency_hour as u (hour, provider, model, measure, bin, calls)
    select date_trunc('hour', t.bucket, 'UTC'), t.provider, t.model, l.measure, l.bin, sum(t.sign)
    from taken as t
      cross join lateral (
        select 'response' as measure, b.bin from unnest(t.response_bins) as b (bin)
        union all
        select 'first_token', b.bin from unnest(t.first_token_bins) as b (bin)
      ) as l
    group by 1, t.provider, t.model, l.measure, l.bin
    on conflict (hour, provider, model, measure, bin) do update
    set calls = u.calls + excluded.calls
  )

  select count(*) into v_taken from taken;

  if v_taken > 0 then
    update analytics.state as s set folded_at = chatter.clock();
  end if;
  return v_taken;
end
$$;

create table analytics.state (
  only_row boolean not null default true,
  folded_at timestamptz,
  worker text,
  worked_at timestamptz,
  constraint state_pkey primary key (only_row),
  constraint state_only_row_check check (only_row)
);

insert into analytics.state default values;

comment on table analytics.deltas is 'Signed changes that wait to be folded into the rollups; a row per statement and group.';
comment on column analytics.deltas.id is 'Order of arrival.';
comment on column analytics.deltas.bucket is 'Quarter of an hour in which the tokens were spent.';
comment on column analytics.deltas.user_id is 'Whose conversation; NULL when the app did not say.';
comment on column analytics.deltas.workflow_name is 'Of the run; empty without one.';
comment on column analytics.deltas.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.deltas.model is 'Model of the call; empty where none is named.';
comment on column analytics.deltas.kind is 'turn or step.';
comment on column analytics.deltas.sign is '1: rows came, -1: rows left.';
comment on column analytics.deltas.response_bins is 'A histogram bin for each call''s response time.';
comment on column analytics.deltas.first_token_bins is 'A histogram bin for each call''s time to first token.';
comment on column analytics.deltas.messages is 'Rows of any kind.';
comment on column analytics.deltas.turns is 'What people wrote or were shown.';
comment on column analytics.deltas.calls is 'Model calls, failed ones included.';
comment on column analytics.deltas.failed_calls is 'Model calls that failed or were cancelled.';
comment on column analytics.deltas.prompt_tokens is 'Prompt tokens, cached ones included.';
comment on column analytics.deltas.completion_tokens is 'Completion tokens, reasoning included.';
comment on column analytics.deltas.total_tokens is 'Tokens as the provider totals them.';
comment on column analytics.deltas.cache_read_tokens is 'Prompt tokens read from a cache.';
comment on column analytics.deltas.cache_write_tokens is 'Prompt tokens written to a cache.';
comment on column analytics.deltas.reasoning_tokens is 'Completion tokens spent on reasoning.';
comment on column analytics.deltas.cost is 'US dollars of the calls whose price is known.';
comment on column analytics.deltas.unpriced_calls is 'Model calls of unknown cost.';
comment on column analytics.deltas.unknown_usage is 'Model calls whose provider reported no usage.';
comment on sequence analytics.deltas_id_seq is 'Ids of deltas.';
comment on table analytics.usage_15min is 'Rollup: usage by quarter of an hour, workflow, provider, model and kind of row.';
comment on column analytics.usage_15min.bucket is 'Quarter of an hour in which the tokens were spent.';
comment on column analytics.usage_15min.workflow_name is 'Of the run; empty without one.';
comment on column analytics.usage_15min.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.usage_15min.model is 'Model of the call; empty where none is named.';
comment on column analytics.usage_15min.kind is 'turn or step.';
comment on column analytics.usage_15min.messages is 'Rows of any kind.';
comment on column analytics.usage_15min.turns is 'What people wrote or were shown.';
comment on column analytics.usage_15min.calls is 'Model calls, failed ones included.';
comment on column analytics.usage_15min.failed_calls is 'Model calls that failed or were cancelled.';
comment on column analytics.usage_15min.prompt_tokens is 'Prompt tokens, cached ones included.';
comment on column analytics.usage_15min.completion_tokens is 'Completion tokens, reasoning included.';
comment on column analytics.usage_15min.total_tokens is 'Tokens as the provider totals them.';
comment on column analytics.usage_15min.cache_read_tokens is 'Prompt tokens read from a cache.';
comment on column analytics.usage_15min.cache_write_tokens is 'Prompt tokens written to a cache.';
comment on column analytics.usage_15min.reasoning_tokens is 'Completion tokens spent on reasoning.';
comment on column analytics.usage_15min.cost is 'US dollars of the calls whose price is known.';
comment on column analytics.usage_15min.unpriced_calls is 'Model calls of unknown cost.';
comment on column analytics.usage_15min.unknown_usage is 'Model calls whose provider reported no usage.';
comment on table analytics.usage_user_day is 'Rollup: usage by UTC day, user, provider and model.';
comment on column analytics.usage_user_day.day is 'UTC day in which the tokens were spent.';
comment on column analytics.usage_user_day.user_id is 'Whose conversation; NULL when the app did not say.';
comment on column analytics.usage_user_day.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.usage_user_day.model is 'Model of the call; empty where none is named.';
comment on column analytics.usage_user_day.messages is 'Rows of any kind.';
comment on column analytics.usage_user_day.turns is 'What people wrote or were shown.';
comment on column analytics.usage_user_day.calls is 'Model calls, failed ones included.';
comment on column analytics.usage_user_day.failed_calls is 'Model calls that failed or were cancelled.';
comment on column analytics.usage_user_day.prompt_tokens is 'Prompt tokens, cached ones included.';
comment on column analytics.usage_user_day.completion_tokens is 'Completion tokens, reasoning included.';
comment on column analytics.usage_user_day.total_tokens is 'Tokens as the provider totals them.';
comment on column analytics.usage_user_day.cache_read_tokens is 'Prompt tokens read from a cache.';
comment on column analytics.usage_user_day.cache_write_tokens is 'Prompt tokens written to a cache.';
comment on column analytics.usage_user_day.reasoning_tokens is 'Completion tokens spent on reasoning.';
comment on column analytics.usage_user_day.cost is 'US dollars of the calls whose price is known.';
comment on column analytics.usage_user_day.unpriced_calls is 'Model calls of unknown cost.';
comment on column analytics.usage_user_day.unknown_usage is 'Model calls whose provider reported no usage.';
comment on table analytics.latency_hour is 'Rollup: histograms of latency by hour, provider and model.';
comment on column analytics.latency_hour.hour is 'Hour (UTC) in which the call ended.';
comment on column analytics.latency_hour.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.latency_hour.model is 'Model of the call; empty where none is named.';
comment on column analytics.latency_hour.measure is 'response, or first_token.';
comment on column analytics.latency_hour.bin is 'See analytics.latency_bin().';
comment on column analytics.latency_hour.calls is 'Model calls in the bin.';
comment on table analytics.state is 'One row: how far the worker is.';
comment on column analytics.state.only_row is 'Always true.';
comment on column analytics.state.folded_at is 'When deltas were folded last; NULL if never.';
comment on column analytics.state.worker is 'Host and process of the worker that leads, or led last.';
comment on column analytics.state.worked_at is 'When it last did a round.';
comment on index chatter.messages_created_at_idx is 'What was written between two moments.';
comment on function chatter.tg_messages__deltas() is 'Appends what a statement changed to analytics.deltas.';
comment on function chatter.tg_refuse_change_of_dimension() is 'Refuses another user or workflow for what has figures.';
comment on trigger _400_deltas_insert on chatter.messages is 'Adds new rows to the analytics.';
comment on trigger _400_deltas_update_old on chatter.messages is 'Takes the old version of changed rows away.';
comment on trigger _401_deltas_update_new on chatter.messages is 'Adds the new version of changed rows.';
comment on trigger _400_deltas_delete on chatter.messages is 'Takes deleted rows away.';
comment on trigger _000_refuse_change_of_user on chatter.conversations is 'A conversation stays its user''s.';
comment on trigger _000_refuse_change_of_workflow on chatter.workflow_executions is 'A run stays of its workflow.';
comment on function analytics.fold(integer) is 'Folds waiting deltas into the rollups, exactly once; returns how many.';
-- What is exact now: each rollup together with the deltas that wait, in one snapshot.

create view analytics.usage_15min_live as
select
  x.bucket, x.workflow_name, x.provider, x.model, x.kind,
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
    r.bucket, r.workflow_name, r.provider, r.model, r.kind,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens, r.completion_tokens,
    r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost,
    r.unpriced_calls, r.unknown_usage
  from analytics.usage_15min as r
  union all
  select
    d.bucket, d.workflow_name, d.provider, d.model, d.kind,
    d.messages, d.turns, d.calls, d.failed_calls, d.prompt_tokens, d.completion_tokens,
    d.total_tokens, d.cache_read_tokens, d.cache_write_tokens, d.reasoning_tokens, d.cost,
    d.unpriced_calls, d.unknown_usage
  from analytics.deltas as d
) as x
group by x.bucket, x.workflow_name, x.provider, x.model, x.kind
having sum(x.messages) <> 0;

comment on view analytics.usage_15min_live is 'Usage by quarter of an hour, workflow, provider, model and kind of row; exact now.';

create view analytics.usage_user_day_live as
select
  x.day, x.user_id, x.provider, x.model,
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
    r.day, r.user_id, r.provider, r.model,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens, r.completion_tokens,
    r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost,
    r.unpriced_calls, r.unknown_usage
  from analytics.usage_user_day as r
  union all
  select
    (d.bucket at time zone 'UTC')::date, d.user_id, d.provider, d.model,
    d.messages, d.turns, d.calls, d.failed_calls, d.prompt_tokens, d.completion_tokens,
    d.total_tokens, d.cache_read_tokens, d.cache_write_tokens, d.reasoning_tokens, d.cost,
    d.unpriced_calls, d.unknown_usage
  from analytics.deltas as d
) as x
group by x.day, x.user_id, x.provider, x.model
having sum(x.messages) <> 0;

comment on view analytics.usage_user_day_live is 'Usage by UTC day, user, provider and model; exact now.';

create view analytics.usage_hourly as
select
  date_trunc('hour', u.bucket, 'UTC') as hour, u.workflow_name, u.provider, u.model, u.kind,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_15min as u
group by 1, u.workflow_name, u.provider, u.model, u.kind
having sum(u.messages) <> 0;

comment on view analytics.usage_hourly is
  'Usage by hour (UTC), workflow, provider, model and kind of row; as far as it is folded.';

create view analytics.usage_hourly_live as
select
  date_trunc('hour', u.bucket, 'UTC') as hour, u.workflow_name, u.provider, u.model, u.kind,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_15min_live as u
group by 1, u.workflow_name, u.provider, u.model, u.kind
having sum(u.messages) <> 0;

comment on view analytics.usage_hourly_live is
  'Usage by hour (UTC), workflow, provider, model and kind of row; exact now.';

create view analytics.latency_hour_live as
select x.hour, x.provider, x.model, x.measure, x.bin, sum(x.calls)::bigint as calls
from (
  select l.hour, l.provider, l.model, l.measure, l.bin, l.calls
  from analytics.latency_hour as l
  union all
  select date_trunc('hour', d.bucket, 'UTC'), d.provider, d.model, 'response', b.bin, d.sign
  from analytics.deltas as d
    cross join lateral unnest(d.response_bins) as b (bin)
  union all
  select date_trunc('hour', d.bucket, 'UTC'), d.provider, d.model, 'first_token', b.bin, d.sign
  from analytics.deltas as d
    cross join lateral unnest(d.first_token_bins) as b (bin)
) as x
group by x.hour, x.provider, x.model, x.measure, x.bin
having sum(x.calls) <> 0;

comment on view analytics.latency_hour_live is 'Histograms of latency by hour, provider and model; exact now.';

create view analytics.running_executions_live as
select
  e.id, e.workflow_name, e.conversation_id, e.user_id, e.correlation_id, e.started_at,
  chatter.clock() - e.started_at as elapsed, e.model_calls, e.tool_calls, e.total_tokens, e.total_cost
from chatter.workflow_executions as e
where e.status = 'running';

comment on view analytics.running_executions_live is
  'Executions that run at this moment, with elapsed time, tokens and cost so far.';

-- Usage by user between any two moments, to the microsecond: whole UTC days from the
-- rollup and its waiting deltas, the rest of the first and the last day from messages.
create function analytics.user_usage(p_since timestamptz, p_until timestamptz)
returns table (
  user_id uuid, provider text, model text,
  messages bigint, turns bigint, calls bigint, failed_calls bigint, prompt_tokens bigint,
  completion_tokens bigint, total_tokens bigint, cache_read_tokens bigint,
  cache_write_tokens bigint, reasoning_tokens bigint, cost numeric, unpriced_calls bigint,
  unknown_usage bigint
)
language sql stable
set search_path = ''
as $$
  with days as (
    select
      -- Midnights (UTC): of the first whole day, and after the last one.
      date_bin('1 day', p_since + interval '1 day' - interval '1 microsecond', '2000-01-01 00:00:00+00') as first,
      date_bin('1 day', p_until, '2000-01-01 00:00:00+00') as last
  ),

  parts as (
    select
      u.user_id, u.provider, u.model,
      u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens, u.completion_tokens,
      u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens, u.cost,
      u.unpriced_calls, u.unknown_usage
    from analytics.usage_user_day_live as u
      cross join days as d
    where u.day >= (d.first at time zone 'UTC')::date and u.day < (d.last at time zone 'UTC')::date
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
    from days as d
      cross join lateral (
        -- If no whole day lies between, this is all there is.
        values (p_since, least(p_until, greatest(d.first, p_since))),
          (greatest(d.last, least(p_until, greatest(d.first, p_since))), p_until)
      ) as edge (since, until)
      join chatter.messages as m on m.created_at >= edge.since and m.created_at < edge.until
      join chatter.conversations as c on c.id = m.conversation_id
  )

  select
    p.user_id, p.provider, p.model,
    sum(p.messages)::bigint as messages, sum(p.turns)::bigint as turns,
    sum(p.calls)::bigint as calls, sum(p.failed_calls)::bigint as failed_calls,
    sum(p.prompt_tokens)::bigint as prompt_tokens,
    sum(p.completion_tokens)::bigint as completion_tokens,
    sum(p.total_tokens)::bigint as total_tokens,
    sum(p.cache_read_tokens)::bigint as cache_read_tokens,
    sum(p.cache_write_tokens)::bigint as cache_write_tokens,
    sum(p.reasoning_tokens)::bigint as reasoning_tokens, sum(p.cost)::numeric as cost,
    sum(p.unpriced_calls)::bigint as unpriced_calls, sum(p.unknown_usage)::bigint as unknown_usage
  from parts as p
  group by p.user_id, p.provider, p.model
  having sum(p.messages) <> 0
$$;

comment on function analytics.user_usage(timestamptz, timestamptz) is
  'Usage by user, provider and model between two moments (the second one excluded); exact now, for days of any time zone.';
-- Materialized views: history at the price of an index scan, by UTC day. Each has a unique
-- index (so that it is refreshed without blocking readers), `as_of`, and a twin *_live that
-- is exact now. analytics.views registers them; a test finds one that is not.

create table analytics.views (
  name text not null,
  refresh_every interval not null default '5 seconds',
  refreshed_at timestamptz,
  refresh_ms double precision,
  constraint views_pkey primary key (name),
  constraint views_refresh_every_check check (refresh_every > interval '0')
);

comment on table analytics.views is 'The registry of materialized views: how fresh they shall be, and are.';
comment on column analytics.views.name is 'Of the materialized view in this schema.';
comment on column analytics.views.refresh_every is 'No sooner than this after the last refresh.';
comment on column analytics.views.refreshed_at is 'When it was refreshed last; NULL if it was never filled.';
comment on column analytics.views.refresh_ms is 'How long that took, in milliseconds.';

create view analytics.usage_daily_live as
select
  (u.bucket at time zone 'UTC')::date as day,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_15min_live as u
group by 1;

create materialized view analytics.usage_daily as
select v.*, chatter.clock() as as_of from analytics.usage_daily_live as v
with no data;

create unique index usage_daily_day_key on analytics.usage_daily (day);

comment on materialized view analytics.usage_daily is 'Messages, calls, tokens and cost of each UTC day on which they were spent.';
comment on view analytics.usage_daily_live is 'Messages, calls, tokens and cost of each UTC day on which they were spent. Exact now.';
comment on index analytics.usage_daily_day_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('usage_daily');

create view analytics.usage_by_model_live as
select
  (u.bucket at time zone 'UTC')::date as day, u.provider, u.model,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_15min_live as u
where u.calls <> 0
group by 1, u.provider, u.model;

create materialized view analytics.usage_by_model as
select v.*, chatter.clock() as as_of from analytics.usage_by_model_live as v
with no data;

create unique index usage_by_model_day_provider_model_key on analytics.usage_by_model (day, provider, model);

comment on materialized view analytics.usage_by_model is 'Calls, tokens and cost by UTC day, provider and model.';
comment on view analytics.usage_by_model_live is 'Calls, tokens and cost by UTC day, provider and model. Exact now.';
comment on index analytics.usage_by_model_day_provider_model_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('usage_by_model');

create view analytics.usage_by_workflow_live as
select
  (u.bucket at time zone 'UTC')::date as day, u.workflow_name,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_15min_live as u
group by 1, u.workflow_name;

create materialized view analytics.usage_by_workflow as
select v.*, chatter.clock() as as_of from analytics.usage_by_workflow_live as v
with no data;

create unique index usage_by_workflow_day_workflow_name_key on analytics.usage_by_workflow (day, workflow_name);

comment on materialized view analytics.usage_by_workflow is 'Messages, calls, tokens and cost by UTC day and workflow.';
comment on view analytics.usage_by_workflow_live is 'Messages, calls, tokens and cost by UTC day and workflow. Exact now.';
comment on index analytics.usage_by_workflow_day_workflow_name_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('usage_by_workflow');

create view analytics.usage_by_user_live as
select
  u.day, u.user_id,
  sum(u.messages)::bigint as messages, sum(u.turns)::bigint as turns,
  sum(u.calls)::bigint as calls, sum(u.failed_calls)::bigint as failed_calls,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.completion_tokens)::bigint as completion_tokens,
  sum(u.total_tokens)::bigint as total_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  sum(u.reasoning_tokens)::bigint as reasoning_tokens, sum(u.cost)::numeric as cost,
  sum(u.unpriced_calls)::bigint as unpriced_calls, sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_user_day_live as u
group by u.day, u.user_id;

create materialized view analytics.usage_by_user as
select v.*, chatter.clock() as as_of from analytics.usage_by_user_live as v
with no data;

create unique index usage_by_user_day_user_id_key on analytics.usage_by_user (day, user_id) nulls not distinct;

comment on materialized view analytics.usage_by_user is 'Messages, calls, tokens and cost by UTC day and user.';
comment on view analytics.usage_by_user_live is 'Messages, calls, tokens and cost by UTC day and user. Exact now.';
comment on index analytics.usage_by_user_day_user_id_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('usage_by_user');

create view analytics.dearest_conversations_live as
select
  row_number() over (order by c.total_cost desc, c.id) as place,
  c.id as conversation_id, c.external_id, c.user_id, c.message_count, c.prompt_tokens,
  c.completion_tokens, c.total_tokens, c.total_cost, c.unpriced_calls, c.last_message_at
from chatter.conversations as c
where c.total_cost > 0
order by c.total_cost desc, c.id
limit 1000;

create materialized view analytics.dearest_conversations as
select v.*, chatter.clock() as as_of from analytics.dearest_conversations_live as v
with no data;

create unique index dearest_conversations_place_key on analytics.dearest_conversations (place);

comment on materialized view analytics.dearest_conversations is 'The thousand conversations that cost most, since they began.';
comment on view analytics.dearest_conversations_live is 'The thousand conversations that cost most, since they began. Exact now.';
comment on index analytics.dearest_conversations_place_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('dearest_conversations');

create view analytics.latency_by_model_live as
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
      (l.hour at time zone 'UTC')::date as day, l.provider, l.model, l.measure, l.bin,
      sum(l.calls) as calls
    from analytics.latency_hour_live as l
    group by 1, l.provider, l.model, l.measure, l.bin
  ) as x
) as b
group by b.day, b.provider, b.model, b.measure;

create materialized view analytics.latency_by_model as
select v.*, chatter.clock() as as_of from analytics.latency_by_model_live as v
with no data;

create unique index latency_by_model_day_provider_model_measure_key on analytics.latency_by_model (day, provider, model, measure);

comment on materialized view analytics.latency_by_model is 'Response time and time to first token by UTC day, provider and model, as percentiles of a histogram: at most 4.5 % off.';
comment on view analytics.latency_by_model_live is 'Response time and time to first token by UTC day, provider and model, as percentiles of a histogram: at most 4.5 % off. Exact now.';
comment on index analytics.latency_by_model_day_provider_model_measure_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('latency_by_model');

create view analytics.tool_usage_live as
select
  (coalesce(t.started_at, e.started_at) at time zone 'UTC')::date as day, t.tool_name,
  count(*) as calls,
  count(*) filter (where t.status = 'completed') as completed,
  count(*) filter (where t.status = 'failed') as failed,
  count(*) filter (where t.status = 'requested') as never_run,
  avg(t.duration_ms) as mean_ms,
  max(t.duration_ms) as max_ms
from chatter.tool_calls as t
  join chatter.workflow_executions as e on e.id = t.execution_id
group by 1, t.tool_name;

create materialized view analytics.tool_usage as
select v.*, chatter.clock() as as_of from analytics.tool_usage_live as v
with no data;

create unique index tool_usage_day_tool_name_key on analytics.tool_usage (day, tool_name);

comment on materialized view analytics.tool_usage is 'Tool calls by UTC day and tool: asked for, completed, failed, never run, and how long they took.';
comment on view analytics.tool_usage_live is 'Tool calls by UTC day and tool: asked for, completed, failed, never run, and how long they took. Exact now.';
comment on index analytics.tool_usage_day_tool_name_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('tool_usage');

create view analytics.cache_usage_live as
select
  (u.bucket at time zone 'UTC')::date as day, u.provider, u.model,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  round(sum(u.cache_read_tokens) / nullif(sum(u.prompt_tokens), 0), 4) as read_share
from analytics.usage_15min_live as u
where u.cache_read_tokens <> 0 or u.cache_write_tokens <> 0
group by 1, u.provider, u.model;

create materialized view analytics.cache_usage as
select v.*, chatter.clock() as as_of from analytics.cache_usage_live as v
with no data;

create unique index cache_usage_day_provider_model_key on analytics.cache_usage (day, provider, model);

comment on materialized view analytics.cache_usage is 'Prompt tokens that came from a cache, by UTC day, provider and model, and their share of all.';
comment on view analytics.cache_usage_live is 'Prompt tokens that came from a cache, by UTC day, provider and model, and their share of all. Exact now.';
comment on index analytics.cache_usage_day_provider_model_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('cache_usage');

create view analytics.unpriced_usage_live as
select
  (u.bucket at time zone 'UTC')::date as day, u.provider, u.model,
  sum(u.calls)::bigint as calls,
  sum(u.unpriced_calls)::bigint as unpriced_calls,
  sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_15min_live as u
group by 1, u.provider, u.model
having sum(u.unpriced_calls) <> 0 or sum(u.unknown_usage) <> 0;

create materialized view analytics.unpriced_usage as
select v.*, chatter.clock() as as_of from analytics.unpriced_usage_live as v
with no data;

create unique index unpriced_usage_day_provider_model_key on analytics.unpriced_usage (day, provider, model);

comment on materialized view analytics.unpriced_usage is 'Calls whose cost or usage nobody knows, by UTC day, provider and model.';
comment on view analytics.unpriced_usage_live is 'Calls whose cost or usage nobody knows, by UTC day, provider and model. Exact now.';
comment on index analytics.unpriced_usage_day_provider_model_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('unpriced_usage');

create view analytics.active_users_live as
select
  p.period, date_trunc(p.period, u.day::timestamp)::date as starts,
  count(distinct u.user_id) as users,
  sum(u.cost)::numeric as cost
from analytics.usage_user_day_live as u
  cross join (values ('day'), ('week'), ('month')) as p (period)
where u.user_id is not null
group by 1, 2;

create materialized view analytics.active_users as
select v.*, chatter.clock() as as_of from analytics.active_users_live as v
with no data;

create unique index active_users_period_starts_key on analytics.active_users (period, starts);

comment on materialized view analytics.active_users is 'Users that had a message, by UTC day, week (from Monday) and month.';
comment on view analytics.active_users_live is 'Users that had a message, by UTC day, week (from Monday) and month. Exact now.';
comment on index analytics.active_users_period_starts_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('active_users');

-- Refreshes the views that are due, if anything was folded since; the first time plain,
-- because a view without data can't be refreshed concurrently. With p_force all of them. Names
-- what it refreshed.
create function analytics.refresh(p_force boolean default false) returns setof text
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
        v.refreshed_at + v.refresh_every <= chatter.clock()
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

comment on function analytics.refresh(boolean) is 'Refreshes the materialized views that are due; names them.';

-- The worker's word that figures are new: an event, by the trigger of its own table.
create function analytics.tg_views__events() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
  if exists (select from new_rows as n) then
    perform chatter.record_event(
      'analytics_refreshed', 'analytics',
      pg_catalog.jsonb_build_object(
        'v', 1, 'views', (select pg_catalog.jsonb_agg(n.name order by n.name) from new_rows as n)
      )
    );
  end if;
  return null;
end
$$;

create trigger _300_events_update
  after update on analytics.views
  referencing new table as new_rows
  for each statement execute function analytics.tg_views__events();

comment on function analytics.tg_views__events() is 'Writes analytics_refreshed into the outbox.';
comment on trigger _300_events_update on analytics.views is 'Writes analytics_refreshed.';

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

-- Roles.
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
      error_type, error_message, metadata
    ) on chatter.workflow_executions to chatter_app;
    grant update (status, finished_at, error_type, error_message, metadata)
      on chatter.workflow_executions to chatter_app;
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
        'analytics.user_usage(timestamptz, timestamptz) to %I',
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

  -- Workers close executions whose process died.
  if pg_catalog.to_regrole('chatter_worker') is not null then
    grant usage on schema chatter to chatter_worker;
    grant execute on function chatter.clock() to chatter_worker;
    grant select on chatter.workflow_executions to chatter_worker;
    grant update (status, finished_at, error_type, error_message)
      on chatter.workflow_executions to chatter_worker;
    grant execute on function
      chatter.prune_events(timestamptz), chatter.prune_security(timestamptz),
      analytics.fold(integer), analytics.refresh(boolean), chatter.bell()
    to chatter_worker;
    grant update (worker, worked_at) on analytics.state to chatter_worker;
  end if;
end
$$;

select chatter.grant_roles();
