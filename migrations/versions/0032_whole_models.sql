-- Of a day's prompts of a model all count for the share that came from a cache: not only those
-- of workflows and kinds that had anything to do with one.
create or replace view analytics.cache_usage_live as
select
  u.day, u.provider, u.model,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  round(sum(u.cache_read_tokens) / nullif(sum(u.prompt_tokens), 0), 4) as read_share
from analytics.usage_day_live as u
group by 1, u.provider, u.model
having sum(u.cache_read_tokens) <> 0 or sum(u.cache_write_tokens) <> 0;

-- Nor may it depend on the workflow whether what is no call, but bears a model, is counted with it.
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
having sum(u.calls) <> 0;

-- They are refreshed when something was folded; on quiet books that may be long.
do $do$
declare
  v_view text;
begin
  for v_view in
    select m.matviewname
    from pg_catalog.pg_matviews as m
    where m.schemaname = 'analytics' and m.matviewname in ('cache_usage', 'usage_by_model') and m.ispopulated
  loop
    execute pg_catalog.format('refresh materialized view analytics.%I', v_view);
  end loop;
end
$do$;
