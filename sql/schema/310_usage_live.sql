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

-- What an app may read of analytics: by its own condition, because a view reads as its owner,
-- whom no policy binds (400).
create view analytics.usage_user_day_live with (security_barrier) as
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
where (select nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null)
  or x.user_id = (select nullif(pg_catalog.current_setting('chatter.user_id', true), '')::uuid)
group by x.day, x.user_id, x.provider, x.model
having sum(x.messages) <> 0;

comment on view analytics.usage_user_day_live is 'Usage by UTC day, user, provider and model; exact now.';

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

-- What waits is read once, though latency_by_model_live asks for its days one by one.
create view analytics.latency_day_live as
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

comment on view analytics.latency_day_live is 'Histograms of latency by UTC day, provider and model; exact now.';

create view analytics.running_executions_live as
select
  e.id, e.workflow_name, e.conversation_id, e.user_id, e.correlation_id, e.started_at,
  chatter.clock() - e.started_at as elapsed, e.model_calls, e.tool_calls, e.total_tokens, e.total_cost
from chatter.workflow_executions as e
where e.status = 'running';

comment on view analytics.running_executions_live is
  'Executions that run at this moment, with elapsed time, tokens and cost so far.';

-- Not by casting: today is the session's there, and in Tokyo it is tomorrow from 15:00 UTC on.
create function analytics.local_time(p_time text, p_time_zone text) returns timestamp
language sql stable
as $$
  select
    case lower(p_time)
      when 'now' then now() at time zone p_time_zone
      when 'today' then date_trunc('day', now() at time zone p_time_zone)
      when 'yesterday' then date_trunc('day', now() at time zone p_time_zone) - interval '1 day'
      when 'tomorrow' then date_trunc('day', now() at time zone p_time_zone) + interval '1 day'
      else p_time::timestamp
    end
$$;

comment on function analytics.local_time(text, text) is
  'A local time of a time zone: now, today, yesterday, tomorrow there, or a time as it is written.';

-- Where clocks are set back over midnight that comes twice (Havana, the Azores), and Postgres takes
-- the second: the day begins with the first. PL/pgSQL, because it is planned once a session.
create function analytics.moment(p_time text, p_time_zone text) returns timestamptz
language plpgsql stable
as $$
declare
  v_local timestamp := analytics.local_time(p_time, p_time_zone);
  v_at timestamptz := v_local at time zone p_time_zone;
  v_before timestamptz := v_at - interval '3 hours';
  v_first timestamptz;
begin
  if lower(p_time) = 'now' then
    return now();
  end if;
  -- Postgres reads an offset as POSIX does, UTC+5 as five hours west of Greenwich. These are the
  -- names with a digit that there are; who writes rules with commas knows what they mean.
  if p_time_zone ~ '^[^,]*[0-9][^,]*$'
    and p_time_zone !~* '^(etc/gmt(0|[+]([0-9]|1[0-2])|-([0-9]|1[0-4]))|gmt[-+]?0|(est5e|cst6c|mst7m|pst8p)dt)$'
  then
    raise exception
      'No time zone %; names are like UTC or Europe/Berlin, and the view pg_timezone_names has them all.',
      p_time_zone
    using errcode = 'CH422';
  end if;
  -- Postgres would read over an offset, and over a word that is no part of a date.
  if p_time ~* '[+]|-.*-.*-|:[0-9].*-|[t ][0-9]{6}([.][0-9]+)? *-'
    or regexp_replace(
      translate(p_time, '0123456789', '          '),
      '[[:<:]](t|am|pm|now|today|yesterday|tomorrow|epoch|infinity|ad|bc|jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?'
      '|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?|dec(ember)?|mon(day)?|tue(s(day)?)?'
      '|wed(nesday)?|thu(rs?(day)?)?|fri(day)?|sat(urday)?|sun(day)?)[[:>:]]',
      '', 'gi'
    ) ~* '[a-z]'
  then
    raise exception 'A local time of % is a date or time, with no offset or time zone of its own: %.',
      p_time_zone, p_time
    using errcode = 'CH422', hint = 'Leave it out, or ask for that time_zone.';
  end if;
  -- If the clocks went on as they did before.
  v_first := v_before + (v_local - (v_before at time zone p_time_zone));
  if v_first < v_at and v_first at time zone p_time_zone = v_local then
    return v_first;
  end if;
  return v_at;
end
$$;

comment on function analytics.moment(text, text) is
  'When it is a local time (see analytics.local_time) in a time zone; the first time, if it comes twice there.';

-- An empty answer would look like a period in which nothing was spent.
create function analytics.period_end(p_since text, p_until text, p_time_zone text) returns timestamptz
language plpgsql stable
as $$
declare
  v_until timestamptz := analytics.moment(p_until, p_time_zone);
begin
  if analytics.moment(p_since, p_time_zone) >= v_until then
    raise exception 'since (%) must be before until (%).', p_since, p_until
    using errcode = 'CH422';
  end if;
  return v_until;
end
$$;

comment on function analytics.period_end(text, text, text) is
  'When a period ends, from and until local times of a time zone (see analytics.moment); refused where it does not begin before.';

-- Of calls without any known price the sum is 0, which is no cost. What other calls of the same
-- line cost is told, beside the number of those that have none.
create function analytics.known_cost(p_cost numeric, p_calls numeric, p_unpriced_calls numeric)
returns numeric
language sql immutable
as $$
  select case when p_cost = 0 and p_calls > 0 and p_unpriced_calls >= p_calls then null else trim_scale(p_cost) end
$$;

comment on function analytics.known_cost(numeric, numeric, numeric) is
  'The cost of a line of a report, in US dollars: NULL where none of its calls has a known one.';

-- What the dashboard and sql/analytics stand on. Rows of a period, not summed up (whoever asks
-- sums once, over the columns that are asked for), each from the coarsest rollup that is
-- exact there, and from the deltas that wait. Plain SQL without a SET clause, so that
-- Postgres inlines it; the bounds of the deltas are subselects, because it would work out
-- a time zone's midnight for every one of them.

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
  where u.bucket >= (select p_since) and u.bucket < (select p_until)
$$;

comment on function analytics.usage_between(timestamptz, timestamptz) is
  'Usage between two moments (the second one excluded), to the quarter of an hour, in rows to sum up; exact now.';

-- The coarser rollup whose buckets cross no boundary of a chart by hour: neither of the period
-- nor of an hour of its time zone. Clocks are changed in summer, so every midnight is asked,
-- as far as there is anything in the books.
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
    -- Of empty books they would be all midnights of the period.
    where k.first is not null
  ) as b
$$;

comment on function analytics.grain(timestamptz, timestamptz, text) is
  'hour or quarter: the coarser rollup that is exact for a chart by hour of a time zone.';

-- For charts: p_step is day or hour, of a time zone. By hour, from the coarsest rollup that is
-- exact. By day, whole UTC days from usage_day, though a midnight of the zone cuts them in two:
-- a day counts where the larger part of it belongs, and the hours and quarters of the
-- smaller part are taken from there and given to its neighbour. So that is never more than
-- half of the hours. Days on which the clocks are changed are read by quarters: dates may
-- be skipped then, and midnights come twice.
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
    where k.first is not null
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
  where u.bucket >= (select p_since) and u.bucket < (select p_until)
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
  where date_trunc('hour', d.bucket, 'UTC') >= (select p_since)
    and date_trunc('hour', d.bucket, 'UTC') < (select p_until)
  union all
  select d.provider, d.model, 'first_token', b.bin, d.sign
  from analytics.deltas as d
    cross join lateral unnest(d.first_token_bins) as b (bin)
  where date_trunc('hour', d.bucket, 'UTC') >= (select p_since)
    and date_trunc('hour', d.bucket, 'UTC') < (select p_until)
$$;

comment on function analytics.latency_between(timestamptz, timestamptz) is
  'Histograms of latency of the hours (UTC) that begin between two moments, in rows to sum up; exact now.';

-- Usage by user and model between any two moments, to the microsecond: whole UTC days from
-- the rollup, its waiting deltas, and the rest from messages. In rows to sum up, as
-- usage_between; what the nearest midnight has too much is in rows below zero, so that no
-- more than twelve hours of messages are read at either end.
create function analytics.user_usage(p_since timestamptz, p_until timestamptz)
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

comment on function analytics.user_usage(timestamptz, timestamptz) is
  'Usage by user, provider and model between two moments (the second one excluded), in rows to sum up; exact now, for days of any time zone.';

-- The same without a model: whole UTC months from their rollup, between the beginnings of months
-- that are nearest, and what lies between those and the period from user_usage, to be added or
-- taken away. Of a period that ends on the newest day, which is what most are asked for, the
-- last month is taken up to that day's end. Where that would be to read more days than the period
-- has, there are no months. Asked for with values and not by joins, which the planner would
-- take for large ones.
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
