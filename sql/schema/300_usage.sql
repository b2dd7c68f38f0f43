-- Analytics: how many tokens and dollars, by when they were spent.
--
-- Writers append signed deltas: a row for each group of rows that a statement wrote,
-- negative for rows that leave. No counter is shared, so writers never meet here. The worker
-- folds deltas into rollups; a rollup plus the deltas that wait is exact at any moment,
-- because both are read in one snapshot and a fold moves them in one transaction.
--
-- Grains, measured on 10 million messages of 5,000 users over 90 days (README). Without a
-- user: the quarter of an hour, because zones are apart by whole quarters, so that a day of
-- any zone is a sum of whole buckets; and the hour and the UTC day, because a question that
-- needs no finer one reads 4 or 96 times fewer rows (310 chooses). With the user: the UTC day
-- and, without a model, the month. A user writes a few messages an hour, so user x hour x model would hardly be
-- smaller than the messages themselves. Users in other zones are summed from whole UTC months
-- and days and, at the two edges, from messages (analytics.user_usage).

do $do$
begin
  if pg_catalog.to_regnamespace('analytics') is null then
    create schema analytics;
  end if;
end
$do$;

comment on schema analytics is 'Figures over time: deltas, rollups, materialized views, and for each its exact *_live view.';

-- Histograms that can be added up: eight bins an octave, so that a value read from
-- the middle of a bin is at most 4.5 % off. Bin b holds 2^(b/8) to 2^((b+1)/8) milliseconds, bin 0 less than that, too.
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
comment on function analytics.bin_ms(smallint) is 'The middle of a histogram bin, in milliseconds: at most 4.5 % off, 1 ms at least.';
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
  conversation_ids uuid[],
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

-- Without a primary key (a user may be NULL), so that an UPDATE would fail as soon as somebody
-- publishes all tables, as Debezium does by itself. Costs nothing unless wal_level is logical.
alter table analytics.usage_user_day replica identity full;
alter table analytics.usage_user_month replica identity full;

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

-- Whose a conversation was, and of which workflow and time a run, that is gone: a statement may delete
-- messages together with their parents, and the figures are taken away where they were added.
create table analytics.former_parents (
  id uuid not null,
  user_id uuid,
  workflow_name text,
  started_at timestamptz,
  constraint former_parents_pkey primary key (id)
);

create function analytics.tg_keep_former_parent() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
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
comment on column analytics.former_parents.started_at is 'When the run began; NULL for a conversation.';
comment on function analytics.tg_keep_former_parent() is 'Remembers whose a deleted conversation or run was.';
comment on trigger _050_keep_former_parent on chatter.conversations is 'Remembers whose it was.';
comment on trigger _050_keep_former_parent on chatter.workflow_executions is 'Remembers of which workflow it was.';

-- Whose the figures are, and of which workflow, is known from the parents: what has figures
-- keeps both.
create function chatter.tg_refuse_change_of_dimension() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
-- other gets 0. Returns how many deltas it took, of messages or of tool calls, whichever were
-- more: if it is p_limit, there may be more.
create function analytics.fold(p_limit integer default 10000) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fold bigint;
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
  select coalesce(s.folds, 0) + 1 into strict v_fold from analytics.state as s;

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
  ),

  changed_days as (
    insert into analytics.days as u (day, fold)
    select distinct (q.bucket at time zone 'UTC')::date, v_fold
    from by_quarter as q
    on conflict (day) do update
    set fold = excluded.fold
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
    update analytics.state as s set folds = v_fold, folded_at = chatter.clock();
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

-- Counts all rollups anew from the messages and tool calls; writers wait meanwhile, readers don't. The
-- rollups never need it, unless triggers were switched off. Returns the number of messages.
create function analytics.rebuild() returns bigint
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

comment on function analytics.rebuild() is 'Counts the rollups anew from all messages and tool calls; for the owner, and slow.';

create table analytics.state (
  only_row boolean not null default true,
  folded_at timestamptz,
  worker text,
  worked_at timestamptz,
  dearest_cost numeric not null default 0,
  dearest_id uuid,
  folds bigint,
  constraint state_pkey primary key (only_row),
  constraint state_only_row_check check (only_row)
);

insert into analytics.state default values;

-- By which a live view knows what its materialized view still has right (320).
create table analytics.days (
  day date not null,
  fold bigint not null,
  constraint days_pkey primary key (day)
);

comment on table analytics.days is 'The UTC days whose figures a fold has changed.';
comment on column analytics.days.day is 'UTC day in which the tokens were spent.';
comment on column analytics.days.fold is 'The last fold that changed figures of it, as analytics.state counts them.';

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
comment on column analytics.deltas.conversation_ids is 'Conversations whose cost it changed, some more than once; NULL if none.';
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
comment on table analytics.latency_hour is 'Rollup: histograms of latency by hour, provider and model.';
comment on column analytics.latency_hour.hour is 'Hour (UTC) in which the call ended.';
comment on column analytics.latency_hour.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.latency_hour.model is 'Model of the call; empty where none is named.';
comment on column analytics.latency_hour.measure is 'response, or first_token.';
comment on column analytics.latency_hour.bin is 'See analytics.latency_bin().';
comment on column analytics.latency_hour.calls is 'Model calls in the bin.';
comment on table analytics.latency_day is 'Rollup: histograms of latency by UTC day, provider and model.';
comment on column analytics.latency_day.day is 'UTC day on which the call ended.';
comment on column analytics.latency_day.provider is 'Provider of the call; empty where none is named.';
comment on column analytics.latency_day.model is 'Model of the call; empty where none is named.';
comment on column analytics.latency_day.measure is 'response, or first_token.';
comment on column analytics.latency_day.bin is 'See analytics.latency_bin().';
comment on column analytics.latency_day.calls is 'Model calls in the bin.';
comment on table analytics.state is 'One row: how far the worker is.';
comment on column analytics.state.only_row is 'Always true.';
comment on column analytics.state.folded_at is 'When deltas were folded last; NULL if never.';
comment on column analytics.state.worker is 'Host and process of the worker that leads, or led last.';
comment on column analytics.state.worked_at is 'When it last did a round.';
comment on column analytics.state.dearest_cost is 'The cost of the last conversation of which analytics.dearest_candidates has all that are dearer; 0: it has all.';
comment on column analytics.state.dearest_id is 'That conversation: of equal cost, the older id is the dearer.';
comment on column analytics.state.folds is 'How often deltas were folded; NULL if never.';
comment on index chatter.messages_created_at_idx is 'What was written between two moments.';
comment on function chatter.tg_refuse_change_of_dimension() is 'Refuses another user or workflow for what has figures.';
comment on trigger _000_refuse_change_of_user on chatter.conversations is 'A conversation stays its user''s.';
comment on trigger _000_refuse_change_of_workflow on chatter.workflow_executions is 'A run stays of its workflow.';
comment on function analytics.fold(integer) is 'Folds up to p_limit waiting deltas of messages, and of tool calls, into the rollups, exactly once; returns how many of the more numerous.';
