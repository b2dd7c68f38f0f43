-- The conversations that runs were booked under.
select e.id, e.conversation_id
from chatter.workflow_executions as e
where e.id = any(:execution_ids)
