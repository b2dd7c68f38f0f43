-- How long models take: percentiles of response time and time to first token.
--
-- From histograms: at most 4.5 % off, 1 ms at least. Hours of UTC.
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/slowest_models.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  b.provider, b.model, b.measure, max(b.total)::bigint as calls,
  round(min(analytics.bin_ms(b.bin)) filter (where b.upto >= 0.50 * b.total)::numeric, 1) as p50_ms,
  round(min(analytics.bin_ms(b.bin)) filter (where b.upto >= 0.95 * b.total)::numeric, 1) as p95_ms,
  round(min(analytics.bin_ms(b.bin)) filter (where b.upto >= 0.99 * b.total)::numeric, 1) as p99_ms
from (
  select
    x.provider, x.model, x.measure, x.bin,
    sum(x.calls) over (partition by x.provider, x.model, x.measure) as total,
    sum(x.calls) over (partition by x.provider, x.model, x.measure order by x.bin) as upto
  from (
    select l.provider, l.model, l.measure, l.bin, sum(l.calls) as calls
    from analytics.latency_between(
        analytics.moment(:'since', :'time_zone'),
        analytics.period_end(:'since', :'until', :'time_zone')
      ) as l
    group by l.provider, l.model, l.measure, l.bin
    having sum(l.calls) <> 0
  ) as x
) as b
group by b.provider, b.model, b.measure
order by p95_ms desc, b.provider, b.model, b.measure;
