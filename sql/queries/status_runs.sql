-- Executions that run now.
select
  count(*) as running,
  min(e.started_at) as running_since
from chatter.workflow_executions as e
where e.status = 'running'
