-- Failed calls and runs are few of many: by an index of their own a report of errors reads them alone.
create index messages_failed_idx on chatter.messages (created_at)
  where status <> 'completed';
create index workflow_executions_failed_idx
  on chatter.workflow_executions (started_at)
  where status in ('failed', 'cancelled', 'abandoned');

comment on index chatter.messages_failed_idx is 'Failed and cancelled calls by time.';
comment on index chatter.workflow_executions_failed_idx is 'What came to nothing, by time.';
