-- What is new is found by what began or ran, not by the oldest transaction that ran: one that runs
-- for an hour had every reader go through all events of that hour, each time.
create or replace function chatter.event_batch(
  p_p pg_snapshot,
  p_c pg_snapshot,
  p_id bigint,
  p_limit integer,
  p_user_id uuid,
  p_conversation_id uuid,
  p_execution_id uuid,
  p_event_types text[],
  p_categories text[]
) returns setof chatter.events
language plpgsql stable
set search_path = ''
as $$
declare
  v_running xid8[];
begin
  -- Two plans for one question. A batch begins where the transactions do: all its
  -- rows are found by xact_id and sorted (`+ 0` keeps the planner from walking the ids
  -- of all that was ever delivered). It goes on where it was left: by id.
  if p_id = 0 then
    -- What P doesn't see began after it or ran when it was taken. Said so, and not as "since
    -- the oldest that ran": a transaction that runs for an hour would have every reader go
    -- through all events of that hour, each time.
    v_running := array(select pg_catalog.pg_snapshot_xip(p_p));
    return query
    select e.*
    from chatter.events as e
    where (
        (e.xact_id >= pg_catalog.pg_snapshot_xmax(p_p) and e.xact_id < pg_catalog.pg_snapshot_xmax(p_c))
        or e.xact_id = any(v_running)
      )
      and pg_catalog.pg_visible_in_snapshot(e.xact_id, p_c)
      and (p_user_id is null or e.user_id = p_user_id)
      and (p_conversation_id is null or e.conversation_id = p_conversation_id)
      and (p_execution_id is null or e.execution_id = p_execution_id)
      and (p_event_types is null or e.event_type = any(p_event_types))
      and (p_categories is null or e.category = any(p_categories))
    order by e.id + 0
    limit p_limit;
  else
    return query
    select e.*
    from chatter.events as e
    where e.id > p_id
      and not pg_catalog.pg_visible_in_snapshot(e.xact_id, p_p)
      and pg_catalog.pg_visible_in_snapshot(e.xact_id, p_c)
      and (p_user_id is null or e.user_id = p_user_id)
      and (p_conversation_id is null or e.conversation_id = p_conversation_id)
      and (p_execution_id is null or e.execution_id = p_execution_id)
      and (p_event_types is null or e.event_type = any(p_event_types))
      and (p_categories is null or e.category = any(p_categories))
    order by e.id
    limit p_limit;
  end if;
end
$$;

