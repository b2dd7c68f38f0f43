select chatter.events_now();
