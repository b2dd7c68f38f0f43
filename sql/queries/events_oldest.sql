select chatter.events_oldest();
