select
  chatter.prune_events(chatter.clock() - pg_catalog.make_interval(days => $1)) as events,
  chatter.prune_security(chatter.clock() - pg_catalog.make_interval(days => $2)) as security;
