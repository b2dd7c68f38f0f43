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
