-- Of a worker that says nothing for so long the process is frozen (a paused container, a
-- suspended machine): Postgres ends its session, and with it the lead, which another takes. A
-- shorter limit that is there stays.
select pg_catalog.set_config(s.name, $1, false)
from pg_catalog.pg_settings as s
where s.name = 'idle_session_timeout' and (s.setting = '0' or s.setting::bigint > $1::bigint);
