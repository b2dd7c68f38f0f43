-- Logins with the rights that each process needs, for a database that is new. The
-- owner, who migrates, runs it before or after `chatter migrate`; passwords come from the
-- environment:
--
--   SERVER_PASSWORD=... WORKER_PASSWORD=... READER_PASSWORD=... psql -f logins.sql ...

\set ON_ERROR_STOP on
\set server ''
\set worker ''
\set reader ''
\getenv server SERVER_PASSWORD
\getenv worker WORKER_PASSWORD
\getenv reader READER_PASSWORD

-- Else it would be a syntax error, or a login without a password.
select coalesce(bool_or(p.given = ''), false) as missing
from (values (:'server'), (:'worker'), (:'reader')) as p (given)
\gset
\if :missing
  do $$ begin
    raise exception 'a password is missing'
      using hint = 'Set SERVER_PASSWORD, WORKER_PASSWORD and READER_PASSWORD in the environment.';
  end $$;
\endif

-- Roles belong to the whole server: another database of chatter may have made them.
select format('create role %I nologin', r.name)
from (values ('chatter_app'), ('chatter_reader'), ('chatter_worker')) as r (name)
where to_regrole(r.name) is null
\gexec

-- What admins see is read as chatter_reader, all else is the app's.
create role chatter_server login password :'server' in role chatter_app, chatter_reader;
create role chatter_upkeep login password :'worker' in role chatter_worker;
create role chatter_grafana login password :'reader' in role chatter_reader;
