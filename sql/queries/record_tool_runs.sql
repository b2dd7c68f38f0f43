-- What became of tool calls.
update chatter.tool_calls as t
set status = r.status,
    started_at = r.started_at,
    duration_ms = r.duration_ms,
    error_type = r.error_type,
    error_message = r.error_message
from jsonb_to_recordset(cast(:rows as jsonb)) as r (
    id uuid,
    status text,
    started_at timestamptz,
    duration_ms double precision,
    error_type text,
    error_message text
  )
where t.id = r.id
