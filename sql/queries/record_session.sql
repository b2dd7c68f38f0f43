-- A transaction that takes so long is that of a process that was frozen in the middle (a paused
-- container, a suspended machine), and others wait for the conversations that it holds. From Postgres
-- 17 on; idle_in_transaction_session_timeout looks at no pipeline. A limit that is there stays.
select pg_catalog.set_config(s.name, :milliseconds, false)
from pg_catalog.pg_settings as s
where s.name = 'transaction_timeout' and s.setting = '0';
