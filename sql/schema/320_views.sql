-- Materialized views: history at the price of an index scan, by UTC day. Each has a unique
-- index (so that it is refreshed without blocking readers), `as_of`, and a twin *_live that
-- is exact now. analytics.views registers them; a test finds one that is not. `as_of` is when
-- the refresh began: one for all rows, and no later than what they were read from.

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
comment on column analytics.views.refresh_every is 'No sooner than this after the last refresh, nor than ten times what that took.';
comment on column analytics.views.refreshed_at is 'When it was refreshed last; NULL if it was never filled.';
comment on column analytics.views.refresh_ms is 'How long that took, in milliseconds.';

create view analytics.usage_daily_live as
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

create materialized view analytics.usage_daily as
select v.*, now() as as_of from analytics.usage_daily_live as v
with no data;

create unique index usage_daily_day_key on analytics.usage_daily (day);

comment on materialized view analytics.usage_daily is 'Messages, calls, tokens and cost of each UTC day on which they were spent.';
comment on view analytics.usage_daily_live is 'Messages, calls, tokens and cost of each UTC day on which they were spent. Exact now.';
comment on index analytics.usage_daily_day_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('usage_daily');

create view analytics.usage_by_model_live as
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
group by 1, u.provider, u.model
-- What was paid for without a call is in it, or its parts would not add up to the whole.
having sum(u.calls) <> 0 or sum(u.cost) <> 0;

create materialized view analytics.usage_by_model as
select v.*, now() as as_of from analytics.usage_by_model_live as v
with no data;

create unique index usage_by_model_day_provider_model_key on analytics.usage_by_model (day, provider, model);

comment on materialized view analytics.usage_by_model is 'Calls, tokens and cost by UTC day, provider and model.';
comment on view analytics.usage_by_model_live is 'Calls, tokens and cost by UTC day, provider and model. Exact now.';
comment on index analytics.usage_by_model_day_provider_model_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('usage_by_model');

create view analytics.usage_by_workflow_live as
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

create materialized view analytics.usage_by_workflow as
select v.*, now() as as_of from analytics.usage_by_workflow_live as v
with no data;

create unique index usage_by_workflow_day_workflow_name_key on analytics.usage_by_workflow (day, workflow_name);

comment on materialized view analytics.usage_by_workflow is 'Messages, calls, tokens and cost by UTC day and workflow.';
comment on view analytics.usage_by_workflow_live is 'Messages, calls, tokens and cost by UTC day and workflow. Exact now.';
comment on index analytics.usage_by_workflow_day_workflow_name_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('usage_by_workflow');

-- From the rollup itself: by way of usage_user_day_live all would be grouped twice, which
-- took three times as long.
create view analytics.usage_by_user_live as
select
  x.day, x.user_id,
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
    r.day, r.user_id,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens, r.completion_tokens,
    r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost,
    r.unpriced_calls, r.unknown_usage
  from analytics.usage_user_day as r
  union all
  select
    (d.bucket at time zone 'UTC')::date, d.user_id,
    d.messages, d.turns, d.calls, d.failed_calls, d.prompt_tokens, d.completion_tokens,
    d.total_tokens, d.cache_read_tokens, d.cache_write_tokens, d.reasoning_tokens, d.cost,
    d.unpriced_calls, d.unknown_usage
  from analytics.deltas as d
) as x
group by x.day, x.user_id
having sum(x.messages) <> 0;

create materialized view analytics.usage_by_user as
select v.*, now() as as_of from analytics.usage_by_user_live as v
with no data;

create unique index usage_by_user_day_user_id_key on analytics.usage_by_user (day, user_id) nulls not distinct;

comment on materialized view analytics.usage_by_user is 'Messages, calls, tokens and cost by UTC day and user.';
comment on view analytics.usage_by_user_live is 'Messages, calls, tokens and cost by UTC day and user. Exact now.';
comment on index analytics.usage_by_user_day_user_id_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('usage_by_user');

-- From the candidates (305), which are all there is to look at: unless more of them were
-- deleted or became cheaper than the next fold can know of. Then from all conversations.
create view analytics.dearest_conversations_live as
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

create materialized view analytics.dearest_conversations as
select v.*, now() as as_of from analytics.dearest_conversations_live as v
with no data;

create unique index dearest_conversations_place_key on analytics.dearest_conversations (place);

comment on materialized view analytics.dearest_conversations is 'The thousand conversations that cost most, since they began.';
comment on view analytics.dearest_conversations_live is 'The thousand conversations that cost most, since they began. Exact now.';
comment on index analytics.dearest_conversations_place_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('dearest_conversations');

-- The percentiles of a day take a millisecond or two, of months of days far more than a live view
-- may take. So the materialized view says up to which fold it knows everything, and the live view
-- takes from it the days that no fold has changed since and no delta waits for; only
-- the others are computed anew. It never trusts a view that knows more than it can see itself.
-- A function, because it can say that days are few: the planner took them for
-- thousands, and compiled for half a second what runs for two milliseconds.
create function analytics.changed_days(p_folds bigint) returns setof date
language sql stable rows 3
set search_path = pg_catalog, pg_temp
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
select v.*, s.folds, now() as as_of
from analytics.latency_by_model_computed as v
  cross join analytics.state as s;

create view analytics.latency_by_model_live as
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

comment on materialized view analytics.latency_by_model is 'Response time and time to first token by UTC day, provider and model, as percentiles of a histogram: at most 4.5 % off, 1 ms at least.';
comment on view analytics.latency_by_model_computed is 'What latency_by_model is filled with: all percentiles, computed now; slow.';
comment on view analytics.latency_by_model_live is 'Response time and time to first token by UTC day, provider and model, as percentiles of a histogram: at most 4.5 % off, 1 ms at least. Exact now.';
comment on index analytics.latency_by_model_day_provider_model_measure_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('latency_by_model');

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
select v.*, now() as as_of from analytics.tool_usage_live as v
with no data;

create unique index tool_usage_day_tool_name_key on analytics.tool_usage (day, tool_name);

comment on materialized view analytics.tool_usage is 'Tool calls by UTC day and tool: asked for, completed, failed, never run, and how long they took.';
comment on view analytics.tool_usage_live is 'Tool calls by UTC day and tool: asked for, completed, failed, never run, and how long they took. Exact now.';
comment on index analytics.tool_usage_day_tool_name_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('tool_usage');

create view analytics.cache_usage_live as
select
  u.day, u.provider, u.model,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  round(sum(u.cache_read_tokens) / nullif(sum(u.prompt_tokens), 0), 4) as read_share
from analytics.usage_day_live as u
group by 1, u.provider, u.model
having sum(u.cache_read_tokens) <> 0 or sum(u.cache_write_tokens) <> 0;

create materialized view analytics.cache_usage as
select v.*, now() as as_of from analytics.cache_usage_live as v
with no data;

create unique index cache_usage_day_provider_model_key on analytics.cache_usage (day, provider, model);

comment on materialized view analytics.cache_usage is 'Prompt tokens that came from a cache, by UTC day, provider and model, and their share of all.';
comment on view analytics.cache_usage_live is 'Prompt tokens that came from a cache, by UTC day, provider and model, and their share of all. Exact now.';
comment on index analytics.cache_usage_day_provider_model_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('cache_usage');

create view analytics.unpriced_usage_live as
select
  u.day, u.provider, u.model,
  sum(u.calls)::bigint as calls,
  sum(u.unpriced_calls)::bigint as unpriced_calls,
  sum(u.unknown_usage)::bigint as unknown_usage
from analytics.usage_day_live as u
group by 1, u.provider, u.model
having sum(u.unpriced_calls) <> 0 or sum(u.unknown_usage) <> 0;

create materialized view analytics.unpriced_usage as
select v.*, now() as as_of from analytics.unpriced_usage_live as v
with no data;

create unique index unpriced_usage_day_provider_model_key on analytics.unpriced_usage (day, provider, model);

comment on materialized view analytics.unpriced_usage is 'Calls whose cost or usage nobody knows, by UTC day, provider and model.';
comment on view analytics.unpriced_usage_live is 'Calls whose cost or usage nobody knows, by UTC day, provider and model. Exact now.';
comment on index analytics.unpriced_usage_day_provider_model_key is 'For refreshing without blocking readers.';
insert into analytics.views (name) values ('unpriced_usage');

-- Users can't be added up: each period counts its own, days and weeks from the days' rollup. What
-- waits is read once for all of them.
create view analytics.active_users_computed as
with waiting as materialized (
  select
    (w.bucket at time zone 'UTC')::date as day, w.user_id, sum(w.messages)::bigint as messages, sum(w.cost) as cost,
    sum(w.calls) as calls, sum(w.unpriced_calls) as unpriced_calls
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
    select count(*) as users, analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls)) as cost
    from (
      select sum(x.cost) as cost, sum(x.calls) as calls, sum(x.unpriced_calls) as unpriced_calls
      from (
        select r.user_id, r.messages, r.cost, r.calls, r.unpriced_calls
        from analytics.usage_user_day as r
        where r.user_id is not null and r.day between p.starts and p.ends
        union all
        select w.user_id, w.messages, w.cost, w.calls, w.unpriced_calls
        from waiting as w
        where w.day between p.starts and p.ends
      ) as x
      group by x.user_id
      having sum(x.messages) <> 0
    ) as u
  ) as a
where a.users > 0
union all
select 'month', u.month, count(*), analytics.known_cost(sum(u.cost), sum(u.calls), sum(u.unpriced_calls))
from analytics.usage_user_month_live as u
where u.user_id is not null
group by u.month;

create materialized view analytics.active_users as
select v.*, s.folds, now() as as_of
from analytics.active_users_computed as v
  cross join analytics.state as s;

-- As latency_by_model_live.
create view analytics.active_users_live as
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
insert into analytics.views (name) values ('active_users');

-- Refreshes the views that are due, if anything was folded since; the first time plain,
-- because a view without data can't be refreshed concurrently. With p_force all of them. Names
-- what it refreshed. Where all identifiers are quoted, Postgres writes no SQL that it could read for
-- a concurrent refresh.
create function analytics.refresh(p_force boolean default false) returns setof text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
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
      -- The clock was ahead, and has been set back.
      or v.refreshed_at > chatter.clock()
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

comment on function analytics.refresh(boolean) is 'Refreshes the materialized views that are due; names them.';

-- The worker's word that figures are new: an event, by the trigger of its own table.
create function analytics.tg_views__events() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
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
        ('duration_ms', 'How long they took, all together, in milliseconds.'),
        ('elapsed', 'How long the run has been going on.'),
        ('external_id', 'The host app''s own id.'),
        ('failed', 'Tool calls that failed.'),
        ('failed_calls', 'Model calls that failed or were cancelled.'),
        ('first_token_bins', 'A histogram bin for each call''s time to first token.'),
        ('folds', 'The count of folds (analytics.state) up to which it knows everything.'),
        ('hour', 'Hour (UTC) in which the tokens were spent.'),
        ('id', 'The execution.'),
        ('kind', 'turn or step.'),
        ('last_message_at', 'Newest message.'),
        ('mean_ms', 'Mean run of the tool, in milliseconds.'),
        ('measure', 'response, or first_token.'),
        ('message_count', 'Turns of the conversation.'),
        ('messages', 'Rows of any kind.'),
        ('model', 'Model of the call; empty where none is named.'),
        ('model_calls', 'Model calls of the run so far.'),
        ('month', 'First day of the UTC month in which the tokens were spent.'),
        ('never_run', 'Tool calls that were asked for and never seen to run.'),
        ('p50_ms', 'Half of the calls took no longer, in milliseconds, at most 4.5 % off, 1 ms at least.'),
        ('p95_ms', '95 of 100 calls took no longer, in milliseconds, at most 4.5 % off, 1 ms at least.'),
        ('p99_ms', '99 of 100 calls took no longer, in milliseconds, at most 4.5 % off, 1 ms at least.'),
        ('period', 'day, week (from Monday) or month.'),
        ('place', '1 is the dearest.'),
        ('prompt_tokens', 'Prompt tokens, cached ones included.'),
        ('provider', 'Provider of the call; empty where none is named.'),
        ('read_share', 'Share of the prompt tokens that came from a cache, 0 to 1.'),
        ('reasoning_tokens', 'Completion tokens spent on reasoning.'),
        ('response_bins', 'A histogram bin for each call''s response time.'),
        ('started_at', 'When the run began.'),
        ('starts', 'First day (UTC) of the period.'),
        ('status', 'What became of the calls.'),
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
comment on column analytics.active_users.cost is 'US dollars of their calls; NULL where none has a known cost.';
comment on column analytics.active_users_computed.cost is 'US dollars of their calls; NULL where none has a known cost.';
comment on column analytics.active_users_live.cost is 'US dollars of their calls; NULL where none has a known cost.';
comment on column analytics.tool_usage.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_usage_live.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_day_live.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_15min_live.calls is 'Tool calls that a model asked for.';
comment on column analytics.tools_recounted.calls is 'Tool calls that a model asked for.';
comment on column analytics.tool_usage.day is 'UTC day on which the call began; its run, if it never did.';
comment on column analytics.tool_usage_live.day is 'UTC day on which the call began; its run, if it never did.';
comment on column analytics.tool_day_live.day is 'UTC day on which the call began; its run, if it never did.';
comment on column analytics.tool_15min_live.bucket is 'Quarter of an hour in which the call began; its run, if it never did.';
comment on column analytics.tools_recounted.bucket is 'Quarter of an hour in which the call began; its run, if it never did.';
comment on column analytics.tool_day_live.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
comment on column analytics.tool_15min_live.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
comment on column analytics.tools_recounted.bin is 'Of how long they took, see analytics.latency_bin(); -1 where that is unknown.';
