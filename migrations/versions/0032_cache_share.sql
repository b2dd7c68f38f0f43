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

-- It is refreshed when something was folded; on quiet books that may be long.
do $do$
begin
  if (
    select m.ispopulated
    from pg_catalog.pg_matviews as m
    where m.schemaname = 'analytics' and m.matviewname = 'cache_usage'
  ) then
    refresh materialized view analytics.cache_usage;
  end if;
end
$do$;
