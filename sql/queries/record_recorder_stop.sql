update chatter.recorders as r set stopped_at = chatter.clock() where r.id = :id
