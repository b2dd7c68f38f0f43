-- Takes the locks of a batch of several statements up front, in order.
select chatter.lock_conversations(variadic array(
  select e.conversation_id
  from chatter.workflow_executions as e
  where e.id = any(:execution_ids)
))
