-- How much of the prompts came from a cache.
--
-- Tokens and share; the price of a cached token is the provider's own, in the usage of each message.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/cache_savings.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  u.provider, u.model,
  sum(u.prompt_tokens)::bigint as prompt_tokens,
  sum(u.cache_read_tokens)::bigint as cache_read_tokens,
  sum(u.cache_write_tokens)::bigint as cache_write_tokens,
  round(sum(u.cache_read_tokens) / nullif(sum(u.prompt_tokens), 0), 4) as read_share
from analytics.usage_between(
    analytics.moment(:'since', :'time_zone'),
    analytics.period_end(:'since', :'until', :'time_zone')
  ) as u
group by u.provider, u.model
having sum(u.cache_read_tokens) <> 0 or sum(u.cache_write_tokens) <> 0
order by cache_read_tokens desc, u.provider, u.model;
