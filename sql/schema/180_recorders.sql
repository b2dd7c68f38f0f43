-- Recorders: the processes that record runs, and whether they live. A process that is killed
-- ends none of its runs; its heartbeat stops, and the worker ends them.

create table chatter.recorders (
  id uuid not null,
  host text not null,
  process_id bigint not null,
  started_at timestamptz not null default chatter.clock(),
  heartbeat_at timestamptz not null default chatter.clock(),
  stopped_at timestamptz,
  constraint recorders_pkey primary key (id)
);

-- Marks runs abandoned whose recorder has stopped or fallen silent; and those without a
-- recorder (a program of one's own) after a day. Their rows stay, with what they cost. While
-- this server was down nobody could be heard, so silence counts from its start. If the
-- process lives after all, because only its way to the database was cut, the end that it
-- books later wins (sql/queries/record_run_ends.sql). Returns how many.
create function chatter.sweep_executions(p_silent_for interval default '1 minute') returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := chatter.clock();
  v_swept bigint;
begin
  if p_silent_for is null or p_silent_for < interval '0' then
    raise exception 'p_silent_for must not be negative, not %', p_silent_for
      using errcode = 'invalid_parameter_value';
  end if;

  -- In id order, like every writer; what a writer holds this moment is not abandoned.
  with silent as (
    select e.id, coalesce(r.stopped_at, r.heartbeat_at) as last_sign
    from chatter.workflow_executions as e
      left join chatter.recorders as r on r.id = e.recorder_id
    where e.status = 'running'
      and case
        when e.recorder_id is null then e.started_at < v_now - interval '1 day'
        -- Adopted from the spool of a process that never reached the database.
        when r.id is null then e.started_at < v_now - p_silent_for
        when r.stopped_at is not null then true
        else greatest(r.heartbeat_at, pg_catalog.pg_postmaster_start_time()) < v_now - p_silent_for
      end
    order by e.id
    for update of e skip locked
  )

  update chatter.workflow_executions as e
  set status = 'abandoned',
      finished_at = greatest(e.started_at, coalesce(s.last_sign, v_now)),
      error_type = 'Abandoned',
      error_message = 'The process that ran it was last heard of then.'
  from silent as s
  where e.id = s.id;
  get diagnostics v_swept = row_count;

  delete from chatter.recorders as r
  where greatest(r.heartbeat_at, r.stopped_at) < v_now - interval '1 day'
    and not exists (
      select from chatter.workflow_executions as e
      where e.status = 'running' and e.recorder_id = r.id
    );
  return v_swept;
end
$$;

comment on table chatter.recorders is 'Processes that record runs, and when they were last heard of.';
comment on column chatter.recorders.id is 'UUIDv7, drawn by the process.';
comment on column chatter.recorders.host is 'Name of the machine.';
comment on column chatter.recorders.process_id is 'Process id on that machine.';
comment on column chatter.recorders.started_at is 'When it booked its first run.';
comment on column chatter.recorders.heartbeat_at is 'When it was last heard of; every ten seconds.';
comment on column chatter.recorders.stopped_at is 'When it was closed in order; NULL before, or if it was killed.';
comment on function chatter.sweep_executions(interval) is
  'Marks runs of processes that stopped or fell silent abandoned; returns how many.';
