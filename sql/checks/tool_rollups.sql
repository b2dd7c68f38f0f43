-- Rollups of tool calls and waiting deltas together equal the tool calls counted anew.
-- Mend: select analytics.rebuild();
with recounted as materialized (
  select * from analytics.tools_recounted
),

figures as (
  select 'tool_15min' as rollup, u.bucket as since, u.tool_name, u.status, u.bin, u.calls, u.duration_ms, 'stored' as source
  from analytics.tool_15min_live as u
  union all
  select 'tool_15min', r.bucket, r.tool_name, r.status, r.bin, r.calls, r.duration_ms, 'recounted'
  from recounted as r
  union all
  select 'tool_day', u.day::timestamp at time zone 'UTC', u.tool_name, u.status, u.bin, u.calls, u.duration_ms, 'stored'
  from analytics.tool_day_live as u
  union all
  select 'tool_day', date_trunc('day', r.bucket, 'UTC'), r.tool_name, r.status, r.bin, r.calls, r.duration_ms, 'recounted'
  from recounted as r
),

summed as (
  select
    f.rollup, f.since, f.tool_name, f.status, f.bin, f.source,
    jsonb_build_object('calls', sum(f.calls), 'duration_ms', trim_scale(sum(f.duration_ms))) as figures
  from figures as f
  group by f.rollup, f.since, f.tool_name, f.status, f.bin, f.source
)

select
  s.rollup, s.since, s.tool_name, s.status, s.bin,
  (max(s.figures::text) filter (where s.source = 'stored')) as stored,
  (max(s.figures::text) filter (where s.source = 'recounted')) as recounted
from summed as s
group by s.rollup, s.since, s.tool_name, s.status, s.bin
having max(s.figures::text) filter (where s.source = 'stored')
  is distinct from max(s.figures::text) filter (where s.source = 'recounted')
order by s.rollup, s.since, s.tool_name, s.status, s.bin
