-- Users the books don't know yet. In order of name, so that two writers with the
-- same new users wait for each other instead of locking each other out.
insert into chatter.users (external_id)
select distinct r.user_external_id
from jsonb_to_recordset(cast(:rows as jsonb)) as r (type text, user_external_id text)
where r.type = 'RunStarted'
  and r.user_external_id is not null
order by r.user_external_id
on conflict (external_id) do nothing
