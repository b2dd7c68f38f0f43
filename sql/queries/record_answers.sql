-- Replies that turned out to be what the person was shown.
update chatter.messages as m
set kind = 'turn'
from jsonb_to_recordset(cast(:rows as jsonb)) as r (type text, answer_id uuid)
where r.type = 'RunEnded'
  and m.id = r.answer_id
  and m.kind <> 'turn'
