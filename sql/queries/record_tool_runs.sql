-- What became of tool calls. A run that goes on after a pause runs what an earlier
-- one asked for: that call is looked up in the conversation, by the provider's id. One that was
-- booked in reduced form gets the text that was left out, when that is recorded again.
update chatter.tool_calls as t
set status = r.status,
    started_at = r.started_at,
    duration_ms = r.duration_ms,
    error_type = r.error_type,
    error_message = r.error_message
from jsonb_to_recordset(cast(:rows as jsonb)) as r (
    type text,
    id uuid,
    execution_id uuid,
    tool_call_id text,
    status text,
    started_at timestamptz,
    duration_ms double precision,
    error_type text,
    error_message text
  )
where r.type = 'ToolRun'
  and t.id = case
    when r.tool_call_id is null then r.id
    else (
      select asked.id
      from chatter.workflow_executions as e
        join chatter.messages as m on m.conversation_id = e.conversation_id
        join chatter.tool_calls as asked on asked.message_id = m.id
      where e.id = r.execution_id
        and asked.tool_call_id = r.tool_call_id
        and (
          asked.status in ('requested', 'running')
          or (
            asked.error_message is null
            and r.error_message is not null
            and (asked.status, asked.started_at) = (r.status, r.started_at)
          )
        )
      -- Ended by its own end; begun by the last that waits, and not by one that a dead process left.
      order by coalesce(asked.started_at = r.started_at, false) desc, m.created_at desc
      limit 1
    )
  end
