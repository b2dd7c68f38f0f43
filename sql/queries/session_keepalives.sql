-- A host that is gone without a word (its power, its network) is noticed here within ten seconds too.
-- By the system's default it takes two hours, and for so long its locks would be kept: a worker
-- would lead, conversations wait, and writers ring for nobody.
select
  pg_catalog.set_config('tcp_keepalives_idle', '5', false),
  pg_catalog.set_config('tcp_keepalives_interval', '2', false),
  pg_catalog.set_config('tcp_keepalives_count', '2', false),
  pg_catalog.set_config('tcp_user_timeout', '10000', false)
