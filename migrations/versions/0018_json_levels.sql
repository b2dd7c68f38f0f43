-- JSON of no more levels than drivers and web frameworks read: a row with more of them was an error
-- to everybody who read a page with it. Reads each table once.

alter table chatter.users
  drop constraint users_metadata_check,
  add constraint users_metadata_check
    check (jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $.**{100}'));
alter table chatter.conversations
  drop constraint conversations_metadata_check,
  add constraint conversations_metadata_check
    check (jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $.**{100}'));
alter table chatter.workflow_executions
  drop constraint workflow_executions_metadata_check,
  add constraint workflow_executions_metadata_check
    check (jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $.**{100}'));
alter table chatter.messages
  drop constraint messages_metadata_check,
  add constraint messages_metadata_check
    check (jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $.**{100}')),
  add constraint messages_tool_calls_check check (not jsonb_path_exists(tool_calls, 'strict $.**{100}')),
  add constraint messages_usage_check check (not jsonb_path_exists(usage, 'strict $.**{100}'));
alter table chatter.security_events
  drop constraint security_events_details_check,
  add constraint security_events_details_check
    check (jsonb_typeof(details) = 'object' and not jsonb_path_exists(details, 'strict $.**{100}'));
