select * from chatter.events_after($1, $2, $3, $4, $5, $6, $7, $8);
