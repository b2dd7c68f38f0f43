-- Undoing repricings in any order; erased conversations keep what prices are computed by; sessions
-- that are over go with the security events; usage that is filled in is reported.
-- Usage that becomes known later, by a correction or an adoption, is reported, or no price
-- would be computed of it.
create function chatter.tg_messages__reported() returns trigger
language plpgsql volatile
set search_path = ''
as $$
begin
  new.usage_status := 'reported';
  return new;
end
$$;

create trigger _120_reported
  before update on chatter.messages
  for each row
  when (
    old.usage_status = 'unknown'
    and new.usage_status = 'unknown'
    and old.total_tokens is null
    and new.total_tokens is not null
  )
  execute function chatter.tg_messages__reported();

comment on function chatter.tg_messages__reported() is 'Says reported of usage that was unknown and is filled in.';
comment on trigger _120_reported on chatter.messages is 'Says reported of usage that was unknown and is filled in.';

create or replace function chatter.undo_repricing(p_repricing_id uuid, p_limit integer default 1000)
returns bigint
language plpgsql volatile
set search_path = ''
as $$
declare
  v_messages uuid[];
  v_changed bigint;
begin
  loop
    select array_agg(r.message_id) into v_messages
    from (
      select x.message_id
      from chatter.repriced_messages as x
        join chatter.messages as m on m.id = x.message_id
      where x.repricing_id = p_repricing_id
        and not x.undone
        and m.cost = x.cost
        and m.cost_source = 'computed'
        and m.metadata -> 'price' is not distinct from x.price
      order by x.message_id
      limit p_limit
    ) as r;
    exit when v_messages is null;

    perform chatter.lock_conversations(variadic array(
      select m.conversation_id from chatter.messages as m where m.id = any(v_messages)
    ));
    with put_back as (
      update chatter.messages as m
      set cost = r.old_cost,
          cost_source = r.old_cost_source,
          metadata = case
            when r.old_price is null then m.metadata - 'price'
            else m.metadata || jsonb_build_object('price', r.old_price)
          end
      from chatter.repriced_messages as r
      where r.repricing_id = p_repricing_id
        and r.message_id = any(v_messages)
        and m.id = r.message_id
        and m.cost = r.cost
        and m.cost_source = 'computed'
        and m.metadata -> 'price' is not distinct from r.price
      returning m.id
    )

    update chatter.repriced_messages as r
    set undone = true
    from put_back as b
    where r.repricing_id = p_repricing_id and r.message_id = b.id;
    get diagnostics v_changed = row_count;
    -- None if others changed them all before we had the lock: look again.
    if v_changed > 0 then
      return v_changed;
    end if;
  end loop;

  with handed_on as (
    update chatter.repriced_messages as y
    set old_cost = x.old_cost, old_cost_source = x.old_cost_source, old_price = x.old_price
    from chatter.repriced_messages as x
    where x.repricing_id = p_repricing_id
      and not x.undone
      and y.message_id = x.message_id
      -- Later ones: ids are in the order of time.
      and y.repricing_id > p_repricing_id
      and not y.undone
      and y.old_cost = x.cost
      and y.old_cost_source = 'computed'
      and y.old_price is not distinct from x.price
    returning y.message_id
  )

  update chatter.repriced_messages as r
  set undone = true
  from handed_on as h
  where r.repricing_id = p_repricing_id and r.message_id = h.message_id;
  update chatter.repricings as x
  set undone_at = chatter.clock(), undone_by = session_user
  where x.id = p_repricing_id and x.undone_at is null;
  return 0;
end
$$;

create or replace function chatter.erase_conversation(p_conversation_id uuid) returns boolean
language plpgsql volatile
set search_path = ''
as $$
begin
  perform chatter.lock_conversations(p_conversation_id);

  update chatter.conversations as c
  set status = 'deleted', title = null, metadata = '{}'
  where c.id = p_conversation_id;
  if not found then
    return false;
  end if;

  -- Of the metadata what prices are computed by: without it a later price would be wrong.
  update chatter.messages as m
  set content = null, tool_calls = null, error_message = null, metadata = k.figures
  from (
    select
      o.id,
      jsonb_strip_nulls(jsonb_build_object(
        'price', case when o.metadata #> '{price, price_list}' is not null then o.metadata -> 'price' end,
        'usage_kinds',
        case when jsonb_typeof(o.metadata -> 'usage_kinds') = 'object' then o.metadata -> 'usage_kinds' end,
        'usage_terms',
        case when jsonb_typeof(o.metadata -> 'usage_terms') = 'object' then o.metadata -> 'usage_terms' end
      )) as figures
    from chatter.messages as o
    where o.conversation_id = p_conversation_id
  ) as k
  where m.id = k.id
    and (m.content, m.tool_calls, m.error_message, m.metadata)
      is distinct from (null::text, null::jsonb, null::text, k.figures);

  update chatter.tool_calls as t
  set error_message = null
  from chatter.workflow_executions as e
  where e.id = t.execution_id
    and e.conversation_id = p_conversation_id
    and t.error_message is not null;

  update chatter.workflow_executions as e
  set error_message = null, metadata = '{}'
  where e.conversation_id = p_conversation_id
    and (e.error_message is not null or e.metadata <> '{}');
  return true;
end
$$;

create or replace function chatter.prune_security(p_before timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = ''
as $$
declare
  v_before text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
  v_events bigint;
  v_alerts bigint;
  v_sessions bigint;
begin
  if p_before is null or p_before > chatter.clock() - interval '1 day' then
    raise exception 'chatter.prune_security() keeps at least the last day; it was asked to remove all before %',
      p_before
      using errcode = 'invalid_parameter_value', hint = 'The rules count over up to a day back.';
  end if;
  perform pg_catalog.set_config('chatter.maintenance', 'on', true);
  delete from chatter.security_events as e where e.created_at < p_before;
  get diagnostics v_events = row_count;
  delete from chatter.alerts as a
  where a.created_at < p_before
    and (a.blocked_until is null or a.blocked_until < chatter.clock());
  get diagnostics v_alerts = row_count;
  perform pg_catalog.set_config('chatter.maintenance', v_before, true);
  -- With addresses and browsers of people, which aren't kept for ever.
  delete from chatter.browser_sessions as b where least(b.expires_at, b.revoked_at) < p_before;
  get diagnostics v_sessions = row_count;
  return v_events + v_alerts + v_sessions;
end
$$;

comment on column chatter.repriced_messages.undone is
  'Whether it was put back, here or by handing it on to a later repricing; not if others changed the message.';
comment on function chatter.undo_repricing(uuid, integer) is
  'Puts back a batch of what a repricing changed and returns how many; for the owner, until it returns 0.';
comment on function chatter.prune_security(timestamptz) is
  'Removes security events, alerts and sessions that were over before a time at least a day ago; returns how many.';

-- What it warns of was said when the roles were first granted.
set local client_min_messages = error;
select chatter.grant_roles();
reset client_min_messages;
