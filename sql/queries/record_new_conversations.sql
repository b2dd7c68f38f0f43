-- Conversations of runs that belong to none of the host app's.
insert into chatter.conversations (id, user_id)
select r.conversation_id, u.id
from jsonb_to_recordset(cast(:rows as jsonb))
    as r (type text, conversation_id uuid, new_conversation boolean, user_external_id text)
  left join chatter.users as u on u.external_id = r.user_external_id
where r.type = 'RunStarted'
  and r.new_conversation
on conflict (id) do nothing
