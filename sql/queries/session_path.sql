-- Names without a schema are Postgres's own: whoever may create in `public` could make an operator
-- there that fits a comparison better, and it would run with this login's rights. Not through a
-- pooler that nobody told of, where it would stay for others: its process ids are of its own making.
select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)
where $1::integer operator (pg_catalog.=) pg_catalog.pg_backend_pid() or $2::boolean
