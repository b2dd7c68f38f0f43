-- Which tools are called, how often they fail, and how long they take.
--
--
--   psql -v since=2026-01-01 -v until=2026-02-01 -v time_zone=Europe/Berlin -f sql/analytics/tools.sql

\if :{?since} \else \set since 1970-01-01 \endif
\if :{?until} \else \set until tomorrow \endif
\if :{?time_zone} \else \set time_zone UTC \endif

select
  t.tool_name as tool,
  count(*) as calls,
  count(*) filter (where t.status = 'failed') as failed,
  count(*) filter (where t.status = 'requested') as never_run,
  round(avg(t.duration_ms)::numeric, 1) as mean_ms,
  round(max(t.duration_ms)::numeric, 1) as max_ms
from chatter.tool_calls as t
  join chatter.workflow_executions as e on e.id = t.execution_id
where coalesce(t.started_at, e.started_at) >= (:'since'::timestamp at time zone :'time_zone')
  and coalesce(t.started_at, e.started_at) < (:'until'::timestamp at time zone :'time_zone')
group by t.tool_name
order by calls desc, tool;
