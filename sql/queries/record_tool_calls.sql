-- Tool calls that models asked for.
insert into chatter.tool_calls (id, execution_id, message_id, tool_call_id, tool_name)
select r.id, r.execution_id, r.message_id, r.tool_call_id, r.tool_name
from jsonb_to_recordset(cast(:rows as jsonb))
    as r (id uuid, execution_id uuid, message_id uuid, tool_call_id text, tool_name text)
on conflict (id) do nothing
