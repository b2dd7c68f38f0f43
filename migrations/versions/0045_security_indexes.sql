-- Pages of the newest events and alerts go by the id.
comment on index chatter.security_events_created_at_idx is 'What retention takes away.';
comment on index chatter.alerts_created_at_idx is 'What retention takes away.';
