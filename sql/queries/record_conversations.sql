-- Conversations the books don't know yet, under the host app's names.
insert into chatter.conversations (external_id, user_id)
select distinct r.conversation_external_id, u.id
from jsonb_to_recordset(cast(:rows as jsonb))
    as r (type text, conversation_external_id text, user_external_id text)
  left join chatter.users as u on u.external_id = r.user_external_id
where r.type = 'RunStarted'
  and r.conversation_external_id is not null
order by r.conversation_external_id, u.id
on conflict (user_id, external_id) where external_id is not null do nothing
