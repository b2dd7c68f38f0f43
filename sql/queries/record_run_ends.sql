-- Ends of runs. An end that was booked stays: a repeated record changes nothing, but brings the
-- text that was left out when it was booked in reduced form. A run that passed for abandoned had
-- only lost its way to the database. A clock that was set back meanwhile makes no run that took less
-- than nothing.
update chatter.workflow_executions as e
set status = r.status,
    finished_at = greatest(e.started_at, r.finished_at),
    error_type = r.error_type,
    error_message = r.error_message
from jsonb_to_recordset(cast(:rows as jsonb)) as r (
    type text,
    execution_id uuid,
    status text,
    finished_at timestamptz,
    error_type text,
    error_message text
  )
where r.type = 'RunEnded'
  and e.id = r.execution_id
  and (
    e.status in ('running', 'abandoned')
    or (
      e.error_message is null
      and r.error_message is not null
      and (e.status, e.finished_at) = (r.status, greatest(e.started_at, r.finished_at))
    )
  )
