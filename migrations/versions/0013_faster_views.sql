-- Three live views read the rollups once where they grouped twice or counted in numerics:
-- users by day, latency by model, active users.

-- From the rollup itself: by way of usage_user_day_live all would be grouped twice, which
-- took three times as long.
create or replace view analytics.usage_by_user_live as
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

-- In whole numbers, and the bin of a percentile before its milliseconds: per bin, numerics
-- and powers took half of the time.
create or replace view analytics.latency_by_model_live as
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

-- A part for each period, so that a question for one of them reads no more than it needs.
create or replace view analytics.active_users_live as
select 'day'::text as period, u.day as starts, count(*) as users, sum(u.cost)::numeric as cost
from (
  select x.day, x.user_id, sum(x.cost) as cost
  from (
    select r.day, r.user_id, r.messages, r.cost
    from analytics.usage_user_day as r
    where r.user_id is not null
    union all
    select (d.bucket at time zone 'UTC')::date, d.user_id, d.messages, d.cost
    from analytics.deltas as d
    where d.user_id is not null
  ) as x
  group by x.day, x.user_id
  having sum(x.messages) <> 0
) as u
group by u.day
union all
select 'week', u.starts, count(*), sum(u.cost)
from (
  select x.starts, x.user_id, sum(x.cost) as cost
  from (
    select date_trunc('week', r.day::timestamp)::date as starts, r.user_id, r.messages, r.cost
    from analytics.usage_user_day as r
    where r.user_id is not null
    union all
    select date_trunc('week', d.bucket at time zone 'UTC')::date, d.user_id, d.messages, d.cost
    from analytics.deltas as d
    where d.user_id is not null
  ) as x
  group by x.starts, x.user_id
  having sum(x.messages) <> 0
) as u
group by u.starts
union all
select 'month', u.month, count(*), sum(u.cost)
from analytics.usage_user_month_live as u
where u.user_id is not null
group by u.month;
