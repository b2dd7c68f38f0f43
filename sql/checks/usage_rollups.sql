-- Rollups and waiting deltas together equal the usage counted anew from the messages.
-- Mend: select analytics.rebuild();
with recounted as materialized (
  select * from analytics.usage_recounted
),

figures as (
  select
    'usage_15min' as rollup, u.bucket as since, u.workflow_name, u.provider, u.model, u.kind,
    null::uuid as user_id, u.messages, u.calls, u.total_tokens, u.cost, 'stored' as source
  from analytics.usage_15min_live as u
  union all
  select 'usage_15min', r.bucket, r.workflow_name, r.provider, r.model, r.kind, null, r.messages, r.calls, r.total_tokens, r.cost, 'recounted'
  from recounted as r
  union all
  select 'usage_hourly', u.hour, u.workflow_name, u.provider, u.model, u.kind, null, u.messages, u.calls, u.total_tokens, u.cost, 'stored'
  from analytics.usage_hourly_live as u
  union all
  select
    'usage_hourly', date_trunc('hour', r.bucket, 'UTC'), r.workflow_name, r.provider, r.model, r.kind, null,
    r.messages, r.calls, r.total_tokens, r.cost, 'recounted'
  from recounted as r
  union all
  select
    'usage_day', u.day::timestamp at time zone 'UTC', u.workflow_name, u.provider, u.model, u.kind, null,
    u.messages, u.calls, u.total_tokens, u.cost, 'stored'
  from analytics.usage_day_live as u
  union all
  select
    'usage_day', date_trunc('day', r.bucket, 'UTC'), r.workflow_name, r.provider, r.model, r.kind, null,
    r.messages, r.calls, r.total_tokens, r.cost, 'recounted'
  from recounted as r
  union all
  select
    'usage_user_day', u.day::timestamp at time zone 'UTC', null, u.provider, u.model, null, u.user_id,
    u.messages, u.calls, u.total_tokens, u.cost, 'stored'
  from analytics.usage_user_day_live as u
  union all
  select
    'usage_user_day', date_trunc('day', r.bucket, 'UTC'), null, r.provider, r.model, null, r.user_id,
    r.messages, r.calls, r.total_tokens, r.cost, 'recounted'
  from recounted as r
  union all
  select
    'usage_user_month', u.month::timestamp at time zone 'UTC', null, null, null, null, u.user_id,
    u.messages, u.calls, u.total_tokens, u.cost, 'stored'
  from analytics.usage_user_month_live as u
  union all
  select
    'usage_user_month', date_trunc('month', r.bucket, 'UTC'), null, null, null, null, r.user_id,
    r.messages, r.calls, r.total_tokens, r.cost, 'recounted'
  from recounted as r
),

summed as (
  select
    f.rollup, f.since, f.workflow_name, f.provider, f.model, f.kind, f.user_id, f.source,
    -- Compared as numbers (0.10 is 0.1), shown as text.
    jsonb_build_object(
      'messages', sum(f.messages), 'calls', sum(f.calls), 'total_tokens', sum(f.total_tokens),
      'cost', trim_scale(sum(f.cost))
    ) as figures
  from figures as f
  group by f.rollup, f.since, f.workflow_name, f.provider, f.model, f.kind, f.user_id, f.source
)

select
  s.rollup, s.since, s.workflow_name, s.provider, s.model, s.kind, s.user_id,
  (max(s.figures::text) filter (where s.source = 'stored')) as stored,
  (max(s.figures::text) filter (where s.source = 'recounted')) as recounted
from summed as s
group by s.rollup, s.since, s.workflow_name, s.provider, s.model, s.kind, s.user_id
having max(s.figures::text) filter (where s.source = 'stored')
  is distinct from max(s.figures::text) filter (where s.source = 'recounted')
order by s.rollup, s.since, s.provider, s.model
