-- This process lives, and records.
insert into chatter.recorders (id, host, process_id)
values (:id, :host, :process_id)
on conflict (id) do update set heartbeat_at = chatter.clock()
