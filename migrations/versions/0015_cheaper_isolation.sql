-- Whether a message is one's own is looked up by the policy itself: a function a row was
-- most of what acting for a user cost.

create or replace function chatter.create_own_policies() returns void
language plpgsql volatile
set search_path = ''
as $$
declare
  v_table text;
begin
  foreach v_table in array array[
    'users', 'conversations', 'workflow_executions', 'messages', 'tool_calls', 'events',
    'security_events', 'passwords', 'api_keys', 'browser_sessions'
  ] loop
    execute pg_catalog.format('drop policy if exists own on chatter.%I', v_table);
  end loop;

  create policy own on chatter.users to chatter_app
    using (id = (select chatter.acting_user()));
  create policy own on chatter.conversations to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.workflow_executions to chatter_app
    using (
      case
        when (select chatter.acting_user()) is null then false
        when user_id is null then chatter.owns_conversation(conversation_id)
        else user_id = (select chatter.acting_user())
      end
    )
    with check (
      case
        when (select chatter.acting_user()) is null then false
        when user_id <> (select chatter.acting_user()) then false
        when conversation_id is null then user_id is not null
        else chatter.owns_conversation(conversation_id)
      end
    );
  -- The hot one. A scalar look-up by key costs a fraction of the function's call, and is not
  -- hashed over all conversations, as `exists` would be.
  create policy own on chatter.messages to chatter_app
    using (
      case
        when (select chatter.acting_user()) is null then false
        else (select chatter.acting_user()) = (
          select c.user_id from chatter.conversations as c where c.id = messages.conversation_id
        )
      end
    )
    with check (
      case
        when (select chatter.acting_user()) is null then false
        else (select chatter.acting_user()) = (
            select c.user_id from chatter.conversations as c where c.id = messages.conversation_id
          )
          and (execution_id is null or chatter.owns_execution(execution_id))
      end
    );
  create policy own on chatter.tool_calls to chatter_app
    using (
      case
        when (select chatter.acting_user()) is null then false
        else chatter.owns_execution(execution_id)
      end
    )
    with check (
      case
        when (select chatter.acting_user()) is null then false
        else chatter.owns_execution(execution_id)
          and (message_id is null or chatter.owns_message(message_id))
      end
    );
  create policy own on chatter.events to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.security_events to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.passwords to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.api_keys to chatter_app
    using (user_id = (select chatter.acting_user()));
  create policy own on chatter.browser_sessions to chatter_app
    using (user_id = (select chatter.acting_user()));

  for v_table in
    select p.tablename from pg_catalog.pg_policies as p
    where p.schemaname = 'chatter' and p.policyname = 'own'
  loop
    execute pg_catalog.format(
      'comment on policy own on chatter.%I is %L',
      v_table, 'What is the user''s that the transaction acts for, see chatter.act_for().'
    );
  end loop;
end
$$;

set local client_min_messages = error;
select chatter.grant_roles();
reset client_min_messages;
