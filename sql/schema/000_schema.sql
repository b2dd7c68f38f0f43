-- The schema `chatter`: the books of an LLM chat product.
--
--   000 schema      this file: the schema, its clock, its ids
--   100 users       who
--   110 conversations   what belongs together; carries totals
--   120 executions  one run of a workflow; carries totals
--   130 messages    the ledger: one row per turn and per model call
--   140 tool_calls  what the model asked to have done
--   150 totals      the triggers that keep the totals
--   160 guards      what is refused, because the books would drift
--   170 care        recount, erase, lock
--   180 recorders   which processes record, and whether they live
--   190 prices      prices of one's own, and pricing afterwards
--   2xx events      the outbox, its triggers, the cursor; security events, accounts
--   3xx analytics   deltas, rollups, live and materialized views
--   400 isolation   whose rows a login sees that acts for a user
--   900 roles       who may do what
--
-- Conventions: lower case, every name qualified, constraints
-- `<table>_<columns>_<check|key|fkey>`, indexes `<table>_<columns>_idx`, trigger
-- functions `tg_<table>__<task>`, triggers `_NNN_task` where the number is the
-- firing order. A function pins `search_path = pg_catalog, pg_temp` (of an empty one
-- the caller's temporary types come first: their code would run as the owner),
-- except where Postgres should inline it into every row (a SET clause forbids
-- that); those name everything in full instead.

-- Not `if not exists`, which asks for the right to create a schema even where
-- an administrator has made this one for us.
do $do$
begin
  if pg_catalog.to_regnamespace('chatter') is null then
    create schema chatter;
  end if;
end
$do$;

comment on schema chatter is
  'The books of an LLM chat product. Applications write raw columns of messages; triggers keep every total.';

-- One clock for all defaults, so that tests can stop it. clock_timestamp(), not
-- now(): rows of one statement keep the order in which they were written.
create function chatter.clock() returns timestamptz
language sql volatile parallel safe
as $$
  select coalesce(
    nullif(pg_catalog.current_setting('chatter.frozen_clock', true), '')::timestamptz,
    pg_catalog.clock_timestamp()
  )
$$;

comment on function chatter.clock() is
  'The time used by every default of the schema; set chatter.frozen_clock to a timestamp to stop it in a test.';

-- UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random. Neighbours in
-- time are neighbours in the index. Postgres has it built in from 18 on.
do $do$
begin
  if pg_catalog.current_setting('server_version_num')::integer >= 180000 then
    create function chatter.uuid7() returns uuid
    language sql volatile parallel safe
    as 'select pg_catalog.uuidv7()';
  else
    create function chatter.uuid7() returns uuid
    language sql volatile parallel safe
    as $$
      select pg_catalog.encode(
        pg_catalog.set_bit(
          pg_catalog.set_bit(
            pg_catalog.overlay(
              pg_catalog.uuid_send(pg_catalog.gen_random_uuid()),
              pg_catalog.substring(
                pg_catalog.int8send(
                  pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp()) * 1000)::bigint
                ),
                3
              ),
              1, 6
            ),
            52, 1
          ),
          53, 1
        ),
        'hex'
      )::uuid
    $$;
  end if;
end
$do$;

comment on function chatter.uuid7() is
  'A new UUIDv7 (RFC 9562): sorts by the millisecond it was made in.';
