-- The same without waiting: whether it is there to be had, and its number.
select pg_try_advisory_xact_lock(k.key), k.key
from (values (hashtextextended('chatter import', 0))) as k (key)
