-- Which of these messages and executions are booked in reduced form.
select id from chatter.messages where id = any(cast(:ids as uuid[])) and metadata ? 'reduced'
union all
select id from chatter.workflow_executions where id = any(cast(:ids as uuid[])) and metadata ? 'reduced';
