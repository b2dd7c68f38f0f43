-- Histograms of latency and waiting deltas together equal the latencies counted anew from the messages.
-- Mend: select analytics.rebuild();
with recounted as materialized (
  select r.bucket, r.provider, r.model, l.measure, l.bin
  from analytics.usage_recounted as r
    cross join lateral (
      select 'response' as measure, b.bin from unnest(r.response_bins) as b (bin)
      union all
      select 'first_token', b.bin from unnest(r.first_token_bins) as b (bin)
    ) as l
),

figures as (
  select 'latency_hour' as rollup, l.hour as since, l.provider, l.model, l.measure, l.bin, l.calls, 'stored' as source
  from analytics.latency_hour_live as l
  union all
  select 'latency_hour', date_trunc('hour', r.bucket, 'UTC'), r.provider, r.model, r.measure, r.bin, 1, 'recounted'
  from recounted as r
  union all
  select
    'latency_day', l.day::timestamp at time zone 'UTC', l.provider, l.model, l.measure, l.bin, l.calls, 'stored'
  from analytics.latency_day_live as l
  union all
  select 'latency_day', date_trunc('day', r.bucket, 'UTC'), r.provider, r.model, r.measure, r.bin, 1, 'recounted'
  from recounted as r
)

select
  f.rollup, f.since, f.provider, f.model, f.measure, f.bin,
  coalesce(sum(f.calls) filter (where f.source = 'stored'), 0) as stored,
  coalesce(sum(f.calls) filter (where f.source = 'recounted'), 0) as recounted
from figures as f
group by f.rollup, f.since, f.provider, f.model, f.measure, f.bin
having coalesce(sum(f.calls) filter (where f.source = 'stored'), 0)
  <> coalesce(sum(f.calls) filter (where f.source = 'recounted'), 0)
order by f.rollup, f.since, f.provider, f.model, f.measure, f.bin
