-- What was paid for without a call is counted with its model: a tool's price, if no model is named.
create or replace view analytics.usage_by_model_live as
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

-- Nor is the cost of users none of whose calls has a known one 0: it is not known.
create or replace view analytics.active_users_computed as
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

comment on column analytics.active_users.cost is 'US dollars of their calls; NULL where none has a known cost.';
comment on column analytics.active_users_computed.cost is 'US dollars of their calls; NULL where none has a known cost.';
comment on column analytics.active_users_live.cost is 'US dollars of their calls; NULL where none has a known cost.';

-- They are refreshed when something was folded; on quiet books that may be long.
do $do$
declare
  v_view text;
begin
  for v_view in
    select m.matviewname
    from pg_catalog.pg_matviews as m
    where m.schemaname = 'analytics' and m.matviewname in ('active_users', 'usage_by_model') and m.ispopulated
  loop
    execute pg_catalog.format('refresh materialized view analytics.%I', v_view);
  end loop;
end
$do$;
