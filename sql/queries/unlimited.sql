-- A migration takes as long as the books are large: limits that the login or the database sets to
-- queries are not for it, as they are not for pg_dump. To the end of the transaction.
select pg_catalog.set_config(s.name, '0', true)
from pg_catalog.pg_settings as s
-- The last is there from Postgres 17 on.
where s.name in ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
