select chatter.sweep_executions();
