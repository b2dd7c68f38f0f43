-- Totals: conversations and executions always equal the sum over their rows.
--
-- Three rules make that hold under concurrency:
--
-- 1. Deltas, never recounts. At READ COMMITTED a trigger that stores sum(...)
--    overwrites what a neighbour committed meanwhile; `total + delta` waits for
--    the row and adds to what it finds.
-- 2. One lock order: conversations before executions, each in id order, `for no
--    key update` (which lets the foreign-key checks of other inserters pass).
--    A statement that only inserts therefore can't deadlock on totals, however
--    many conversations it touches. These take their conversations first, with
--    chatter.lock_conversations(): a transaction of several statements; a
--    statement of several operations over several conversations (ON CONFLICT DO
--    UPDATE, MERGE), because Postgres runs their triggers one after the other;
--    and a change or deletion of messages that others may be changing too,
--    because Postgres locks a message before a trigger can lock its conversation.
--    Who doesn't may get 40P01 and loses nothing by trying again.
-- 3. Per statement, not per row: one update of a conversation for a thousand
--    new messages.
--
-- The parents are references checked here: an update that finds fewer parents
-- than the new rows name is a foreign-key violation. It can't race with a deletion of
-- the parent, because both need the parent's row lock. Rows that leave need no
-- parent, or a message that lost its own could not be deleted.
--
-- Functions are `security definer`, since the app's role must not be able to
-- write a total itself.

create type chatter.message_delta as (
  conversation_id uuid,
  execution_id uuid,
  turns bigint,
  model_calls bigint,
  prompt_tokens bigint,
  completion_tokens bigint,
  total_tokens bigint,
  cost numeric,
  unpriced_calls bigint,
  newest_before timestamptz,
  newest_after timestamptz
);

comment on type chatter.message_delta is
  'What one statement changed for one pair of conversation and execution.';
comment on column chatter.message_delta.conversation_id is 'Whose totals change.';
comment on column chatter.message_delta.execution_id is 'Whose totals change too; NULL if none.';
comment on column chatter.message_delta.turns is 'Signed number of rows of kind turn.';
comment on column chatter.message_delta.model_calls is 'Signed number of model calls.';
comment on column chatter.message_delta.prompt_tokens is 'Signed tokens.';
comment on column chatter.message_delta.completion_tokens is 'Signed tokens.';
comment on column chatter.message_delta.total_tokens is 'Signed tokens.';
comment on column chatter.message_delta.cost is 'Signed US dollars.';
comment on column chatter.message_delta.unpriced_calls is 'Signed number of model calls without a cost.';
comment on column chatter.message_delta.newest_before is 'Newest created_at among the old rows; NULL for an insert.';
comment on column chatter.message_delta.newest_after is 'Newest created_at among the new rows; NULL for a delete.';

-- In the words and with the code of Postgres's own foreign keys, so that drivers
-- and people know it.
create function chatter.refuse_missing_parent(p_column text, p_parent text, p_key text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'insert or update on table "messages" violates foreign key constraint "messages_%_fkey"',
    p_column
    using
      errcode = 'foreign_key_violation',
      detail = pg_catalog.format('Key (%s)=(%s) is not present in table "%s".', p_column, p_key, p_parent),
      schema = 'chatter',
      table = 'messages',
      column = p_column,
      constraint = pg_catalog.format('messages_%s_fkey', p_column);
end
$$;

comment on function chatter.refuse_missing_parent(text, text, text) is
  'Raises the foreign-key violation of a message whose conversation or execution does not exist.';

-- Adds the deltas to conversations and executions. Any trigger can call it, one
-- per statement or one per row.
--
-- An analyze beside a bulk write sees none of its uncommitted conversations and
-- tells the planner that the table is empty, which then loops over all of them for
-- every delta: 200,000 imported rows took 200 s instead of 4. So no nested loops
-- here; the arrays let a large table be reached by its index without one.
create function chatter.apply_message_deltas(p_deltas chatter.message_delta[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
declare
  v_delta chatter.message_delta := p_deltas[1];
  v_found bigint;
  v_missing text;
begin
  -- The common case, new rows of one conversation and one execution: the same two
  -- updates by key. It spares a single insert two thirds of the time of the sets
  -- below (0.29 ms to 0.09 ms), and its updates take the locks themselves.
  if cardinality(p_deltas) = 1 and v_delta.newest_before is null then
    update chatter.conversations as c
    set message_count = c.message_count + v_delta.turns,
        prompt_tokens = c.prompt_tokens + v_delta.prompt_tokens,
        completion_tokens = c.completion_tokens + v_delta.completion_tokens,
        total_tokens = c.total_tokens + v_delta.total_tokens,
        total_cost = c.total_cost + v_delta.cost,
        unpriced_calls = c.unpriced_calls + v_delta.unpriced_calls,
        last_message_at = greatest(c.last_message_at, v_delta.newest_after)
    where c.id = v_delta.conversation_id;
    if not found then
      perform chatter.refuse_missing_parent(
        'conversation_id', 'conversations', v_delta.conversation_id::text
      );
    end if;

    if v_delta.execution_id is not null then
      update chatter.workflow_executions as e
      set model_calls = e.model_calls + v_delta.model_calls,
          prompt_tokens = e.prompt_tokens + v_delta.prompt_tokens,
          completion_tokens = e.completion_tokens + v_delta.completion_tokens,
          total_tokens = e.total_tokens + v_delta.total_tokens,
          total_cost = e.total_cost + v_delta.cost
      where e.id = v_delta.execution_id;
      if not found then
        perform chatter.refuse_missing_parent(
          'execution_id', 'workflow_executions', v_delta.execution_id::text
        );
      end if;
    end if;
    return;
  end if;

  -- New rows of one conversation need no lock ahead: the update takes it.
  -- Elsewhere the lock comes first, in a statement of its own, so that the next
  -- one sees everything committed until we got it.
  if (select count(distinct d.conversation_id) > 1 or bool_or(d.newest_before is not null)
      from unnest(p_deltas) as d)
  then
    perform from chatter.conversations as c
      where c.id = any(array(select d.conversation_id from unnest(p_deltas) as d))
      order by c.id
      for no key update;
  end if;

  update chatter.conversations as c
  set message_count = c.message_count + d.turns,
      prompt_tokens = c.prompt_tokens + d.prompt_tokens,
      completion_tokens = c.completion_tokens + d.completion_tokens,
      total_tokens = c.total_tokens + d.total_tokens,
      total_cost = c.total_cost + d.cost,
      unpriced_calls = c.unpriced_calls + d.unpriced_calls,
      last_message_at = case
        when d.newest_after >= coalesce(d.newest_before, d.newest_after)
          then greatest(c.last_message_at, d.newest_after)
        when d.newest_before < c.last_message_at
          then c.last_message_at
        -- The newest row went away or back in time: look at what is left.
        else (
          select max(m.created_at)
          from chatter.messages as m
          where m.conversation_id = c.id
        )
      end
  from (
    select
      u.conversation_id,
      sum(u.turns) as turns,
      sum(u.prompt_tokens) as prompt_tokens,
      sum(u.completion_tokens) as completion_tokens,
      sum(u.total_tokens) as total_tokens,
      sum(u.cost) as cost,
      sum(u.unpriced_calls) as unpriced_calls,
      max(u.newest_before) as newest_before,
      max(u.newest_after) as newest_after
    from unnest(p_deltas) as u
    group by u.conversation_id
  ) as d
  where c.id = d.conversation_id
    and c.id = any(array(select k.conversation_id from unnest(p_deltas) as k));

  get diagnostics v_found = row_count;
  if v_found < (select count(distinct d.conversation_id) from unnest(p_deltas) as d) then
    select min(d.conversation_id::text) into v_missing
    from unnest(p_deltas) as d
    where d.newest_after is not null
      and not exists (select from chatter.conversations as c where c.id = d.conversation_id);
    if v_missing is not null then
      perform chatter.refuse_missing_parent('conversation_id', 'conversations', v_missing);
    end if;
  end if;

  if not exists (select from unnest(p_deltas) as d where d.execution_id is not null) then
    return;
  end if;

  perform from chatter.workflow_executions as e
    where e.id = any(array(select d.execution_id from unnest(p_deltas) as d))
    order by e.id
    for no key update;

  update chatter.workflow_executions as e
  set model_calls = e.model_calls + d.model_calls,
      prompt_tokens = e.prompt_tokens + d.prompt_tokens,
      completion_tokens = e.completion_tokens + d.completion_tokens,
      total_tokens = e.total_tokens + d.total_tokens,
      total_cost = e.total_cost + d.cost
  from (
    select
      u.execution_id,
      sum(u.model_calls) as model_calls,
      sum(u.prompt_tokens) as prompt_tokens,
      sum(u.completion_tokens) as completion_tokens,
      sum(u.total_tokens) as total_tokens,
      sum(u.cost) as cost
    from unnest(p_deltas) as u
    where u.execution_id is not null
    group by u.execution_id
  ) as d
  where e.id = d.execution_id
    and e.id = any(array(select k.execution_id from unnest(p_deltas) as k));

  get diagnostics v_found = row_count;
  if v_found < (select count(distinct d.execution_id) from unnest(p_deltas) as d) then
    select min(d.execution_id::text) into v_missing
    from unnest(p_deltas) as d
    where d.newest_after is not null
      and d.execution_id is not null
      and not exists (select from chatter.workflow_executions as e where e.id = d.execution_id);
    if v_missing is not null then
      perform chatter.refuse_missing_parent('execution_id', 'workflow_executions', v_missing);
    end if;
  end if;
end
$$;

comment on function chatter.apply_message_deltas(chatter.message_delta[]) is
  'Adds deltas to the totals of conversations, then executions, each locked in id order.';

create function chatter.tg_messages__totals() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_deltas chatter.message_delta[];
begin
  -- A branch per operation, because each has other transition tables; new rows are
  -- booked by 308. Changes that leave every figure as it was (a new text, say) yield no
  -- delta and touch no total.
  if tg_op = 'DELETE' then
    select array_agg(d::chatter.message_delta) into v_deltas
    from (
      select
        r.conversation_id,
        r.execution_id,
        -count(*) filter (where r.kind = 'turn'),
        -count(*) filter (where r.model_call),
        -coalesce(sum(r.prompt_tokens), 0)::bigint,
        -coalesce(sum(r.completion_tokens), 0)::bigint,
        -coalesce(sum(r.total_tokens), 0)::bigint,
        -coalesce(sum(r.cost), 0),
        -count(*) filter (where r.model_call and r.cost is null),
        max(r.created_at),
        null::timestamptz
      from old_rows as r
      group by r.conversation_id, r.execution_id
    ) as d;
  else
    -- Old rows count -1, new rows +1; a row that moved counts at both ends.
    select array_agg(d::chatter.message_delta) into v_deltas
    from (
      select
        r.conversation_id,
        r.execution_id,
        coalesce(sum(r.sign) filter (where r.kind = 'turn'), 0),
        coalesce(sum(r.sign) filter (where r.model_call), 0),
        coalesce(sum(r.sign * r.prompt_tokens), 0)::bigint,
        coalesce(sum(r.sign * r.completion_tokens), 0)::bigint,
        coalesce(sum(r.sign * r.total_tokens), 0)::bigint,
        coalesce(sum(r.sign * r.cost), 0),
        coalesce(sum(r.sign) filter (where r.model_call and r.cost is null), 0),
        max(r.created_at) filter (where r.sign = -1),
        max(r.created_at) filter (where r.sign = 1)
      from (
        select
          -1 as sign, o.conversation_id, o.execution_id, o.kind, o.model_call, o.prompt_tokens,
          o.completion_tokens, o.total_tokens, o.cost, o.created_at
        from old_rows as o
        union all
        select
          1, n.conversation_id, n.execution_id, n.kind, n.model_call, n.prompt_tokens,
          n.completion_tokens, n.total_tokens, n.cost, n.created_at
        from new_rows as n
      ) as r
      group by r.conversation_id, r.execution_id
      having
        coalesce(sum(r.sign) filter (where r.kind = 'turn'), 0) <> 0
        or coalesce(sum(r.sign) filter (where r.model_call), 0) <> 0
        or coalesce(sum(r.sign * r.prompt_tokens), 0) <> 0
        or coalesce(sum(r.sign * r.completion_tokens), 0) <> 0
        or coalesce(sum(r.sign * r.total_tokens), 0) <> 0
        or coalesce(sum(r.sign * r.cost), 0) <> 0
        or coalesce(sum(r.sign) filter (where r.model_call and r.cost is null), 0) <> 0
        or max(r.created_at) filter (where r.sign = -1)
          is distinct from max(r.created_at) filter (where r.sign = 1)
    ) as d;
  end if;

  if v_deltas is not null then
    perform chatter.apply_message_deltas(v_deltas);
  end if;
  return null;
end
$$;

comment on function chatter.tg_messages__totals() is
  'Turns what a statement changed or deleted in messages into deltas of the totals.';

create trigger _200_totals_update
  after update on chatter.messages
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function chatter.tg_messages__totals();

create trigger _200_totals_delete
  after delete on chatter.messages
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_messages__totals();

comment on trigger _200_totals_update on chatter.messages is 'Keeps the totals of conversations and executions.';
comment on trigger _200_totals_delete on chatter.messages is 'Keeps the totals of conversations and executions.';

create function chatter.tg_tool_calls__totals() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_executions uuid[];
  v_counts bigint[];
begin
  if tg_op = 'INSERT' then
    select array_agg(d.execution_id), array_agg(d.calls) into v_executions, v_counts
    from (
      select r.execution_id, count(*) as calls from new_rows as r group by r.execution_id
    ) as d;
  elsif tg_op = 'DELETE' then
    select array_agg(d.execution_id), array_agg(d.calls) into v_executions, v_counts
    from (
      select r.execution_id, -count(*) as calls from old_rows as r group by r.execution_id
    ) as d;
  else
    select array_agg(d.execution_id), array_agg(d.calls) into v_executions, v_counts
    from (
      select r.execution_id, sum(r.sign) as calls
      from (
        select -1 as sign, o.execution_id from old_rows as o
        union all
        select 1, n.execution_id from new_rows as n
      ) as r
      group by r.execution_id
      having sum(r.sign) <> 0
    ) as d;
  end if;

  if v_executions is null then
    return null;
  end if;

  perform from chatter.workflow_executions as e
    where e.id = any(v_executions)
    order by e.id
    for no key update;

  update chatter.workflow_executions as e
  set tool_calls = e.tool_calls + d.calls
  from unnest(v_executions, v_counts) as d (execution_id, calls)
  where e.id = d.execution_id;
  return null;
end
$$;

comment on function chatter.tg_tool_calls__totals() is 'Keeps workflow_executions.tool_calls.';

create trigger _200_totals_insert
  after insert on chatter.tool_calls
  referencing new table as new_rows
  for each statement
  execute function chatter.tg_tool_calls__totals();

create trigger _200_totals_update
  after update on chatter.tool_calls
  referencing old table as old_rows new table as new_rows
  for each statement
  execute function chatter.tg_tool_calls__totals();

create trigger _200_totals_delete
  after delete on chatter.tool_calls
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_tool_calls__totals();

comment on trigger _200_totals_insert on chatter.tool_calls is 'Keeps the number of tool calls of executions.';
comment on trigger _200_totals_update on chatter.tool_calls is 'Keeps the number of tool calls of executions.';
comment on trigger _200_totals_delete on chatter.tool_calls is 'Keeps the number of tool calls of executions.';
