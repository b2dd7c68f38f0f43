-- Rollups and waiting deltas together equal the usage counted anew from the messages.
-- Mend: select analytics.rebuild();
with figures as (
  select
    'usage_15min' as rollup, u.bucket as since, u.workflow_name, u.provider, u.model, u.kind, null::uuid as user_id,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens,
    u.completion_tokens, u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens,
    u.cost, u.unpriced_calls, u.unknown_usage,
    'stored' as source
  from analytics.usage_15min_live as u
  union all
  select
    'usage_hourly', u.hour, u.workflow_name, u.provider, u.model, u.kind, null,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens,
    u.completion_tokens, u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens,
    u.cost, u.unpriced_calls, u.unknown_usage,
    'stored'
  from analytics.usage_hourly_live as u
  union all
  select
    'usage_day', u.day::timestamp at time zone 'UTC', u.workflow_name, u.provider, u.model, u.kind, null,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens,
    u.completion_tokens, u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens,
    u.cost, u.unpriced_calls, u.unknown_usage,
    'stored'
  from analytics.usage_day_live as u
  union all
  select
    'usage_user_day', u.day::timestamp at time zone 'UTC', null, u.provider, u.model, null, u.user_id,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens,
    u.completion_tokens, u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens,
    u.cost, u.unpriced_calls, u.unknown_usage,
    'stored'
  from analytics.usage_user_day_live as u
  union all
  select
    'usage_user_month', u.month::timestamp at time zone 'UTC', null, null, null, null, u.user_id,
    u.messages, u.turns, u.calls, u.failed_calls, u.prompt_tokens,
    u.completion_tokens, u.total_tokens, u.cache_read_tokens, u.cache_write_tokens, u.reasoning_tokens,
    u.cost, u.unpriced_calls, u.unknown_usage,
    'stored'
  from analytics.usage_user_month_live as u
  union all
  select
    g.rollup, g.since, g.workflow_name, g.provider, g.model, g.kind, g.user_id,
    r.messages, r.turns, r.calls, r.failed_calls, r.prompt_tokens,
    r.completion_tokens, r.total_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens,
    r.cost, r.unpriced_calls, r.unknown_usage,
    'recounted'
  from analytics.usage_recounted as r
    cross join lateral (
      values
        ('usage_15min', r.bucket, r.workflow_name, r.provider, r.model, r.kind, null::uuid),
        ('usage_hourly', date_trunc('hour', r.bucket, 'UTC'), r.workflow_name, r.provider, r.model, r.kind, null),
        ('usage_day', date_trunc('day', r.bucket, 'UTC'), r.workflow_name, r.provider, r.model, r.kind, null),
        ('usage_user_day', date_trunc('day', r.bucket, 'UTC'), null, r.provider, r.model, null, r.user_id),
        ('usage_user_month', date_trunc('month', r.bucket, 'UTC'), null, null, null, null, r.user_id)
    ) as g (rollup, since, workflow_name, provider, model, kind, user_id)
),

summed as (
  select
    f.rollup, f.since, f.workflow_name, f.provider, f.model, f.kind, f.user_id, f.source,
    -- Compared as numbers (0.10 is 0.1), shown as text.
    jsonb_build_object(
      'messages', sum(f.messages), 'turns', sum(f.turns), 'calls', sum(f.calls),
      'failed_calls', sum(f.failed_calls), 'prompt_tokens', sum(f.prompt_tokens), 'completion_tokens', sum(f.completion_tokens),
      'total_tokens', sum(f.total_tokens), 'cache_read_tokens', sum(f.cache_read_tokens), 'cache_write_tokens', sum(f.cache_write_tokens),
      'reasoning_tokens', sum(f.reasoning_tokens), 'cost', trim_scale(sum(f.cost)), 'unpriced_calls', sum(f.unpriced_calls),
      'unknown_usage', sum(f.unknown_usage)
    ) as figures
  from figures as f
  group by f.rollup, f.since, f.workflow_name, f.provider, f.model, f.kind, f.user_id, f.source
),

compared as (
  select
    s.rollup, s.since, s.workflow_name, s.provider, s.model, s.kind, s.user_id,
    (max(s.figures::text) filter (where s.source = 'stored'))::jsonb as stored,
    (max(s.figures::text) filter (where s.source = 'recounted'))::jsonb as recounted
  from summed as s
  group by s.rollup, s.since, s.workflow_name, s.provider, s.model, s.kind, s.user_id
  having max(s.figures::text) filter (where s.source = 'stored')
    is distinct from max(s.figures::text) filter (where s.source = 'recounted')
)

select
  c.rollup, c.since, c.workflow_name, c.provider, c.model, c.kind, c.user_id,
  n.figure, c.stored ->> n.figure as stored, c.recounted ->> n.figure as recounted
from compared as c
  cross join lateral jsonb_object_keys(coalesce(c.stored, c.recounted)) as n (figure)
where coalesce(c.stored ->> n.figure, '0') <> coalesce(c.recounted ->> n.figure, '0')
order by c.rollup, c.since, c.provider, c.model, n.figure
