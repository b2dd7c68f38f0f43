-- Prices of one's own: dated, never changed, and before the price list that comes with the
-- code. A price holds from its moment until the next one of the same model, so that no two
-- can overlap; a row without prices ends them, and the list counts again. Calls are priced
-- by when they were made: the recorder's statement does it (sql/queries/record_messages.sql),
-- so that it works the same for what waited in a spool.

create table chatter.prices (
  id uuid not null default chatter.uuid7(),
  provider text not null,
  model text not null,
  valid_from timestamptz not null,
  prompt_price numeric,
  completion_price numeric,
  cache_read_price numeric,
  cache_write_price numeric,
  note text,
  created_at timestamptz not null default chatter.clock(),
  created_by text not null default session_user,
  constraint prices_pkey primary key (id),
  constraint prices_prompt_price_check check (prompt_price >= 0 and prompt_price < 1000000),
  constraint prices_completion_price_check
    check (completion_price >= 0 and completion_price < 1000000),
  constraint prices_cache_read_price_check
    check (cache_read_price >= 0 and cache_read_price < 1000000),
  constraint prices_cache_write_price_check
    check (cache_write_price >= 0 and cache_write_price < 1000000),
  -- Both or neither; and nothing else in a row that ends a price.
  constraint prices_prompt_price_completion_price_check
    check ((prompt_price is null) = (completion_price is null)),
  constraint prices_prompt_price_cache_read_price_cache_write_price_check
    check (prompt_price is not null or coalesce(cache_read_price, cache_write_price) is null)
);

-- The price of a moment; of two for the same moment the one that was written later.
create index prices_provider_model_valid_from_created_at_idx
  on chatter.prices (provider, model, valid_from, created_at);

create function chatter.tg_prices__refuse_change() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'chatter.% is append-only: % is refused', tg_table_name, tg_op
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      hint = 'Write another price for the same moment: the later one counts. Without prices it ends them.';
end
$$;

create trigger _000_refuse_change
  before update or delete or truncate on chatter.prices
  for each statement execute function chatter.tg_prices__refuse_change();

create function chatter.price_at(p_provider text, p_model text, p_at timestamptz)
returns setof chatter.prices
language sql stable
as $$
  select p.*
  from (
    select x.*
    from chatter.prices as x
    where x.provider = p_provider and x.model = p_model and x.valid_from <= p_at
    order by x.valid_from desc, x.created_at desc
    limit 1
  ) as p
  where p.prompt_price is not null
$$;

-- What is cached is part of the prompt; where it has no price of its own it costs the same.
-- NULL where a count is missing, or more was cached than sent: nobody knows then.
create function chatter.cost_by(
  p_price chatter.prices,
  p_prompt_tokens bigint,
  p_completion_tokens bigint,
  p_cache_read_tokens bigint,
  p_cache_write_tokens bigint
) returns numeric
language sql immutable
as $$
  select case
    when coalesce(p_cache_read_tokens, 0) + coalesce(p_cache_write_tokens, 0) <= p_prompt_tokens
      then trim_scale((
        (p_prompt_tokens - coalesce(p_cache_read_tokens, 0) - coalesce(p_cache_write_tokens, 0))
          * (p_price).prompt_price
        + coalesce(p_cache_read_tokens, 0)
          * coalesce((p_price).cache_read_price, (p_price).prompt_price)
        + coalesce(p_cache_write_tokens, 0)
          * coalesce((p_price).cache_write_price, (p_price).prompt_price)
        + p_completion_tokens * (p_price).completion_price
      ) * 0.000001)
  end
$$;

create function chatter.price_details(p_price chatter.prices) returns jsonb
language sql stable
as $$
  select jsonb_build_object(
    'price_list', 'chatter.prices',
    'price_id', (p_price).id,
    'unit_prices', jsonb_strip_nulls(jsonb_build_object(
      'prompt', (p_price).prompt_price::text,
      'completion', (p_price).completion_price::text,
      'cache_read', (p_price).cache_read_price::text,
      'cache_write', (p_price).cache_write_price::text
    ))
  )
$$;

-- Pricing afterwards: what was changed, by whom and why, row by row, so that it can be undone.
create table chatter.repricings (
  id uuid not null default chatter.uuid7(),
  reason text not null,
  selection jsonb not null default '{}',
  created_at timestamptz not null default chatter.clock(),
  created_by text not null default session_user,
  finished_at timestamptz,
  undone_at timestamptz,
  undone_by text,
  constraint repricings_pkey primary key (id),
  constraint repricings_selection_check check (jsonb_typeof(selection) = 'object')
);

create table chatter.repriced_messages (
  repricing_id uuid not null,
  message_id uuid not null,
  old_cost numeric,
  old_cost_source text,
  old_price jsonb,
  cost numeric not null,
  price jsonb not null,
  undone boolean not null default false,
  constraint repriced_messages_pkey primary key (repricing_id, message_id),
  constraint repriced_messages_repricing_id_fkey
    foreign key (repricing_id) references chatter.repricings (id) on delete restrict
);

-- What else a message was priced by, for continued_by().
create index repriced_messages_message_id_idx on chatter.repriced_messages (message_id);

-- Books new costs for a batch of messages: a JSON array of {id, old_cost, cost, price}. A
-- message that has changed since it was read is left alone, and so is what the provider
-- stated itself; so two repricings at once do nothing twice. Returns how many it changed.
create function chatter.apply_prices(p_repricing_id uuid, p_costs jsonb) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changed bigint;
begin
  -- Conversations before messages, as everywhere.
  perform chatter.lock_conversations(variadic array(
    select m.conversation_id
    from chatter.messages as m
      join jsonb_to_recordset(p_costs) as n (id uuid) on n.id = m.id
  ));

  with old as (
    select m.id, m.cost, m.cost_source, m.metadata -> 'price' as price, n.cost as new_cost, n.price as new_price
    from chatter.messages as m
      join jsonb_to_recordset(p_costs) as n (id uuid, old_cost numeric, cost numeric, price jsonb)
        on n.id = m.id
    where m.cost is not distinct from n.old_cost
      and m.cost_source is distinct from 'provider'
    for update of m
  ),

  booked as (
    insert into chatter.repriced_messages (
      repricing_id, message_id, old_cost, old_cost_source, old_price, cost, price
    )
    select p_repricing_id, o.id, o.cost, o.cost_source, o.price, o.new_cost, o.new_price
    from old as o
    on conflict (repricing_id, message_id) do nothing
    returning message_id, cost, price
  )

  update chatter.messages as m
  set cost = b.cost,
      cost_source = 'computed',
      metadata = m.metadata || jsonb_build_object('price', b.price)
  from booked as b
  where m.id = b.message_id;
  get diagnostics v_changed = row_count;
  return v_changed;
end
$$;

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

-- Puts back what a repricing changed, a batch at a time: call it until it returns 0. A message
-- that was changed again since then stays as it is; if it was priced again, that repricing
-- puts back from now on what was before this one. So the order doesn't matter.
create function chatter.undo_repricing(p_repricing_id uuid, p_limit integer default 1000)
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

comment on table chatter.prices is
  'Prices of one''s own, in US dollars per million tokens, before those of the price list. Append-only.';
comment on column chatter.prices.id is 'UUIDv7.';
comment on column chatter.prices.provider is 'As in messages.provider_used; empty for calls that name none.';
comment on column chatter.prices.model is 'As in messages.model_used.';
comment on column chatter.prices.valid_from is 'For calls made from here on, until the next price of the model.';
comment on column chatter.prices.prompt_price is 'US dollars per million prompt tokens; NULL ends the prices of one''s own.';
comment on column chatter.prices.completion_price is 'US dollars per million completion tokens, reasoning included.';
comment on column chatter.prices.cache_read_price is 'US dollars per million prompt tokens read from a cache; NULL: as the prompt.';
comment on column chatter.prices.cache_write_price is 'US dollars per million prompt tokens written to a cache; NULL: as the prompt.';
comment on column chatter.prices.note is 'Where the price is from.';
comment on column chatter.prices.created_at is 'When it was written; of two for one moment the later counts.';
comment on column chatter.prices.created_by is 'Who wrote it.';
comment on index chatter.prices_provider_model_valid_from_created_at_idx is 'The price of a moment.';
comment on function chatter.tg_prices__refuse_change() is 'Refuses changes of prices: they are history.';
comment on trigger _000_refuse_change on chatter.prices is 'Refuses changes: prices are history.';
comment on function chatter.price_at(text, text, timestamptz) is 'The price of one''s own of a model at a moment; no row if there is none.';
comment on function chatter.cost_by(chatter.prices, bigint, bigint, bigint, bigint) is
  'US dollars of a call by a price: prompt, completion, cache read and cache write tokens; NULL if a count is missing.';
comment on function chatter.price_details(chatter.prices) is 'What is kept of a price in messages.metadata.';
comment on table chatter.repricings is 'Pricings afterwards: who, when, why, and whether it was undone.';
comment on column chatter.repricings.id is 'UUIDv7.';
comment on column chatter.repricings.reason is 'Why, in words.';
comment on column chatter.repricings.selection is 'Which messages were looked at.';
comment on column chatter.repricings.created_at is 'When it began.';
comment on column chatter.repricings.created_by is 'Who did it.';
comment on column chatter.repricings.finished_at is 'When it had looked at all; NULL if it broke off: another one does the rest.';
comment on column chatter.repricings.undone_at is 'When it was put back; NULL if it was not.';
comment on column chatter.repricings.undone_by is 'Who put it back.';
comment on table chatter.repriced_messages is 'What a repricing changed, message by message.';
comment on column chatter.repriced_messages.repricing_id is 'Of which repricing.';
comment on column chatter.repriced_messages.message_id is 'Which message; it may be gone since.';
comment on column chatter.repriced_messages.old_cost is 'Its cost before; NULL if it had none.';
comment on column chatter.repriced_messages.old_cost_source is 'Its cost_source before.';
comment on column chatter.repriced_messages.old_price is 'What its metadata said of the price before.';
comment on column chatter.repriced_messages.cost is 'Its cost after, in US dollars.';
comment on column chatter.repriced_messages.price is 'The price list and unit prices it was computed by.';
comment on column chatter.repriced_messages.undone is
  'Whether it was put back, here or by handing it on to a later repricing; not if others changed the message.';
comment on function chatter.apply_prices(uuid, jsonb) is
  'Books new costs for a batch of messages under a repricing; for the owner. Returns how many it changed.';
comment on index chatter.repriced_messages_message_id_idx is 'What else a message was priced by.';
comment on function chatter.continued_by(chatter.repriced_messages) is
  'The repricing that began at what this one gave a message; NULL if none did, or it was undone.';
comment on function chatter.undo_repricing(uuid, integer) is
  'Puts back a batch of what a repricing changed and returns how many; for the owner, until it returns 0.';
