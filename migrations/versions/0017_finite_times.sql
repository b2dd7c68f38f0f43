-- Times that any language's dates can hold, in any time zone: a row with another one, infinity for
-- example, was an error to everybody who read it. Reads each table once.

alter table chatter.users add constraint users_created_at_check
  check (created_at >= '1970-01-01 00:00:00+00' and created_at < '9999-01-01 00:00:00+00');
alter table chatter.conversations add constraint conversations_created_at_check
  check (created_at >= '1970-01-01 00:00:00+00' and created_at < '9999-01-01 00:00:00+00');
alter table chatter.workflow_executions add constraint workflow_executions_started_at_finished_at_check
  check (
    started_at >= '1970-01-01 00:00:00+00' and started_at < '9999-01-01 00:00:00+00'
    and finished_at >= '1970-01-01 00:00:00+00' and finished_at < '9999-01-01 00:00:00+00'
  );
alter table chatter.messages add constraint messages_created_at_check
  check (created_at >= '1970-01-01 00:00:00+00' and created_at < '9999-01-01 00:00:00+00');
alter table chatter.tool_calls add constraint tool_calls_started_at_check
  check (started_at >= '1970-01-01 00:00:00+00' and started_at < '9999-01-01 00:00:00+00');
