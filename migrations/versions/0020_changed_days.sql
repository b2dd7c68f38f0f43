-- The live views of latency and of active users compute anew only the days that changed since their
-- materialized views were refreshed.
-- NULL until the first fold of this version: no view is trusted that was filled before, because folds
-- of the version before it may end later, and mark no day.
alter table analytics.state add column folds bigint;
comment on column analytics.state.folds is 'How often deltas were folded; NULL if never.';

-- By which a live view knows what its materialized view still has right (320).
create table analytics.days (
  day date not null,
  fold bigint not null,
  constraint days_pkey primary key (day)
);

comment on table analytics.days is 'The UTC days whose figures a fold has changed.';
comment on column analytics.days.day is 'UTC day in which the tokens were spent.';
comment on column analytics.days.fold is 'The last fold that changed figures of it, as analytics.state counts them.';

create or replace function analytics.fold(p_limit integer default 10000) returns bigint
language plpgsql volatile security definer
set search_path = ''
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

create or replace function analytics.rebuild() returns bigint
language plpgsql volatile
set search_path = ''
as $$
declare
  v_messages bigint;
begin
  lock table chatter.messages, chatter.tool_calls in share row exclusive mode;
  perform pg_catalog.pg_advisory_xact_lock(chatter.bell() + 1);
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
      or v.refreshed_at is null
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

-- What waits is read once, though latency_by_model_live asks for its days one by one.
create or replace view analytics.latency_day_live as
with waiting as materialized (
  select (d.bucket at time zone 'UTC')::date as day, d.provider, d.model, b.measure, b.bin, sum(d.sign)::bigint as calls
  from analytics.deltas as d
    cross join lateral (
      select 'response' as measure, r.bin from unnest(d.response_bins) as r (bin)
      union all
      select 'first_token', f.bin from unnest(d.first_token_bins) as f (bin)
    ) as b
  group by 1, d.provider, d.model, b.measure, b.bin
)

select x.day, x.provider, x.model, x.measure, x.bin, sum(x.calls)::bigint as calls
from (
  select l.day, l.provider, l.model, l.measure, l.bin, l.calls
  from analytics.latency_day as l
  union all
  select w.day, w.provider, w.model, w.measure, w.bin, w.calls
  from waiting as w
) as x
group by x.day, x.provider, x.model, x.measure, x.bin
having sum(x.calls) <> 0;

drop materialized view analytics.latency_by_model, analytics.active_users;

-- The percentiles of a day take a millisecond or two, of months of days far more than a live view
-- may take. So the materialized view says up to which fold it knows everything, and the live view
-- takes from it the days that no fold has changed since and no delta waits for; only
-- the others are computed anew. It never trusts a view that knows more than it can see itself.
-- A function, because it can say that days are few: the planner took them for
-- thousands, and compiled for half a second what runs for two milliseconds.
create function analytics.changed_days(p_folds bigint) returns setof date
language sql stable rows 3
set search_path = ''
as $$
  select d.day
  from analytics.days as d
  where d.fold > p_folds
  union
  select u.day
  from analytics.usage_day as u
  where (select coalesce(p_folds > s.folds, true) from analytics.state as s)
  union
  select (w.bucket at time zone 'UTC')::date
  from analytics.deltas as w
$$;

comment on function analytics.changed_days(bigint) is
  'The UTC days whose figures are others than after the fold of that number, now; without one all that have any.';

-- In whole numbers, and the bin of a percentile before its milliseconds: per bin, numerics
-- and powers took half of the time.
create view analytics.latency_by_model_computed as
select
  b.day, b.provider, b.model, b.measure, max(b.total) as calls,
  analytics.bin_ms(min(b.bin) filter (where b.upto * 100 >= b.total * 50)) as p50_ms,
  analytics.bin_ms(min(b.bin) filter (where b.upto * 100 >= b.total * 95)) as p95_ms,
  analytics.bin_ms(min(b.bin) filter (where b.upto * 100 >= b.total * 99)) as p99_ms
from (
  select
    l.day, l.provider, l.model, l.measure, l.bin,
    (sum(l.calls) over (partition by l.day, l.provider, l.model, l.measure))::bigint as total,
    (
      sum(l.calls) over (partition by l.day, l.provider, l.model, l.measure order by l.bin)
    )::bigint as upto
  from analytics.latency_day_live as l
) as b
group by b.day, b.provider, b.model, b.measure;

-- With data, here and below: a live view can't be read while its materialized view has none.
create materialized view analytics.latency_by_model as
select v.*, s.folds, chatter.clock() as as_of
from analytics.latency_by_model_computed as v
  cross join analytics.state as s;

create or replace view analytics.latency_by_model_live as
with changed as materialized (
  select c.day
  from analytics.changed_days((select min(m.folds) from analytics.latency_by_model as m)) as c (day)
)

select m.day, m.provider, m.model, m.measure, m.calls, m.p50_ms, m.p95_ms, m.p99_ms
from analytics.latency_by_model as m
where m.day not in (select c.day from changed as c)
union all
select v.day, v.provider, v.model, v.measure, v.calls, v.p50_ms, v.p95_ms, v.p99_ms
from changed as c
  -- With an offset: computed day by day, never all of them and then joined.
  cross join lateral (select l.* from analytics.latency_by_model_computed as l where l.day = c.day offset 0) as v;

create unique index latency_by_model_day_provider_model_measure_key on analytics.latency_by_model (day, provider, model, measure);

comment on materialized view analytics.latency_by_model is 'Response time and time to first token by UTC day, provider and model, as percentiles of a histogram: at most 4.5 % off.';
comment on view analytics.latency_by_model_computed is 'What latency_by_model is filled with: all percentiles, computed now; slow.';
comment on view analytics.latency_by_model_live is 'Response time and time to first token by UTC day, provider and model, as percentiles of a histogram: at most 4.5 % off. Exact now.';
comment on index analytics.latency_by_model_day_provider_model_measure_key is 'For refreshing without blocking readers.';

-- Users can't be added up: each period counts its own, days and weeks from the days' rollup. What
-- waits is read once for all of them.
create view analytics.active_users_computed as
with waiting as materialized (
  select
    (w.bucket at time zone 'UTC')::date as day, w.user_id, sum(w.messages)::bigint as messages, sum(w.cost) as cost
  from analytics.deltas as w
  where w.user_id is not null
  group by 1, w.user_id
),

days as materialized (
  select d.day from analytics.changed_days(null) as d (day)
),

periods as (
  select 'day'::text as period, d.day as starts, d.day as ends from days as d
  union all
  select distinct 'week', date_trunc('week', d.day::timestamp)::date, date_trunc('week', d.day::timestamp)::date + 6
  from days as d
)

select p.period, p.starts, a.users, a.cost
from periods as p
  cross join lateral (
    select count(*) as users, sum(u.cost)::numeric as cost
    from (
      select sum(x.cost) as cost
      from (
        select r.user_id, r.messages, r.cost
        from analytics.usage_user_day as r
        where r.user_id is not null and r.day between p.starts and p.ends
        union all
        select w.user_id, w.messages, w.cost
        from waiting as w
        where w.day between p.starts and p.ends
      ) as x
      group by x.user_id
      having sum(x.messages) <> 0
    ) as u
  ) as a
where a.users > 0
union all
select 'month', u.month, count(*), sum(u.cost)
from analytics.usage_user_month_live as u
where u.user_id is not null
group by u.month;

create materialized view analytics.active_users as
select v.*, s.folds, chatter.clock() as as_of
from analytics.active_users_computed as v
  cross join analytics.state as s;

-- As latency_by_model_live.
create or replace view analytics.active_users_live as
with changed as materialized (
  select distinct p.period, date_trunc(p.period, d.day::timestamp)::date as starts
  from analytics.changed_days((select min(m.folds) from analytics.active_users as m)) as d (day)
    cross join (values ('day'), ('week'), ('month')) as p (period)
)

select m.period, m.starts, m.users, m.cost
from analytics.active_users as m
where (m.period, m.starts) not in (select c.period, c.starts from changed as c)
union all
select v.period, v.starts, v.users, v.cost
from changed as c
  cross join lateral (
    select u.* from analytics.active_users_computed as u where u.period = c.period and u.starts = c.starts offset 0
  ) as v;

create unique index active_users_period_starts_key on analytics.active_users (period, starts);

comment on materialized view analytics.active_users is 'Users that had a message, by UTC day, week (from Monday) and month.';
comment on view analytics.active_users_computed is 'What active_users is filled with: all periods, counted now; slow.';
comment on view analytics.active_users_live is 'Users that had a message, by UTC day, week (from Monday) and month. Exact now.';
comment on index analytics.active_users_period_starts_key is 'For refreshing without blocking readers.';

-- Of their columns, whose meaning is that of every view.
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
        ('calls', 'Model calls, failed ones included.'),
        ('cost', 'US dollars of the calls whose price is known.'),
        ('day', 'UTC day in which the tokens were spent.'),
        ('folds', 'The count of folds (analytics.state) up to which it knows everything.'),
        ('measure', 'response, or first_token.'),
        ('model', 'Model of the call; empty where none is named.'),
        ('p50_ms', 'Half of the calls took no longer, in milliseconds, at most 4.5 % off.'),
        ('p95_ms', '95 of 100 calls took no longer, in milliseconds, at most 4.5 % off.'),
        ('p99_ms', '99 of 100 calls took no longer, in milliseconds, at most 4.5 % off.'),
        ('period', 'day, week (from Monday) or month.'),
        ('provider', 'Provider of the call; empty where none is named.'),
        ('starts', 'First day (UTC) of the period.'),
        ('users', 'Users that had a message.')
      ) as d (name, description) on d.name = a.attname
    where c.relnamespace = 'analytics'::regnamespace and c.relname ~ '^(latency_by_model|active_users)'
      and c.relkind in ('v', 'm')
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
        'analytics.grain(timestamptz, timestamptz, text), '
        'analytics.changed_days(bigint) to %I',
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
