-- Executions, under the conversation of their host's name or of our id. A
-- conversation that was given by an id we don't have fails its foreign key: what the run brings later
-- makes it (recorder/begun.py). Conversations of nobody are looked up apart, because `user_id is not distinct from` could use no index.
insert into chatter.workflow_executions (
  id, conversation_id, user_id, workflow_name, correlation_id, started_at, metadata,
  recorder_id
)
select
  r.execution_id,
  case
    when r.conversation_id is not null then r.conversation_id
    when u.id is null then (
      select c.id
      from chatter.conversations as c
      where c.user_id is null and c.external_id = r.conversation_external_id
    )
    else (
      select c.id
      from chatter.conversations as c
      where c.user_id = u.id and c.external_id = r.conversation_external_id
    )
  end,
  coalesce(u.id, given.user_id),
  r.workflow_name,
  r.correlation_id,
  r.started_at,
  r.metadata,
  r.recorder_id
from jsonb_to_recordset(cast(:rows as jsonb)) as r (
    type text,
    execution_id uuid,
    conversation_id uuid,
    conversation_external_id text,
    user_external_id text,
    workflow_name text,
    correlation_id text,
    started_at timestamptz,
    metadata jsonb,
    recorder_id uuid
  )
  left join chatter.users as u on u.external_id = r.user_external_id
  left join chatter.conversations as given on given.id = r.conversation_id
where r.type = 'RunStarted'
-- A run whose row was made ahead, as a claim, gets its recorder.
on conflict (id) do update set recorder_id = excluded.recorder_id
  where workflow_executions.recorder_id is null
