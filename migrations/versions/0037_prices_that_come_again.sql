-- A price that comes again was taken for that of another repricing: what was put back, or handed
-- on to all later ones that began at it, was not what held before.
create index repriced_messages_message_id_idx on chatter.repriced_messages (message_id);

-- The next repricing of a message that isn't undone, if it began at what this one gave: a price
-- that comes again says nothing of who gave it. Ids are in the order of time.
create function chatter.continued_by(p_repriced chatter.repriced_messages) returns uuid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select y.repricing_id
  from (
    select n.*
    from chatter.repriced_messages as n
    where n.message_id = (p_repriced).message_id
      and n.repricing_id > (p_repriced).repricing_id
      and not n.undone
    order by n.repricing_id
    limit 1
  ) as y
  where y.old_cost = (p_repriced).cost
    and y.old_cost_source = 'computed'
    and y.old_price is not distinct from (p_repriced).price
$$;

create or replace function chatter.undo_repricing(p_repricing_id uuid, p_limit integer default 1000)
returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
        and chatter.continued_by(x) is null
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
      and y.repricing_id = chatter.continued_by(x)
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

revoke all on function chatter.continued_by(chatter.repriced_messages) from public;

comment on index chatter.repriced_messages_message_id_idx is 'What else a message was priced by.';
comment on function chatter.continued_by(chatter.repriced_messages) is
  'The repricing that began at what this one gave a message; NULL if none did, or it was undone.';
