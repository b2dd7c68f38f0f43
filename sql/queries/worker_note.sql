-- Who works, and that it does.
update analytics.state set worker = $1, worked_at = chatter.clock();
