-- Every message belongs to a conversation, and to an execution if it names one.
-- Mend: insert the missing parent with that id, or delete the messages that name it.
select
  m.id as message_id,
  p.parent,
  p.parent_id as missing_id
from chatter.messages as m
  cross join lateral (
    values
      (
        'conversation',
        m.conversation_id,
        exists (select from chatter.conversations as c where c.id = m.conversation_id)
      ),
      (
        'execution',
        m.execution_id,
        m.execution_id is null
        or exists (select from chatter.workflow_executions as e where e.id = m.execution_id)
      )
  ) as p (parent, parent_id, found)
where not p.found
order by m.id, p.parent
