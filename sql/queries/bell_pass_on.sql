-- For the listeners of other processes, to whom nobody rings while this one is awake.
select pg_catalog.pg_notify('chatter_events', '');
