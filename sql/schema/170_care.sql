-- Care: what an operator or an application needs beyond plain statements.

-- Locks conversations in id order, as the totals triggers do. Transactions of
-- several statements, and those that change or delete messages which others may be
-- changing, can't deadlock with each other if each calls this first, once, for all
-- its conversations (both ends of a move) and then picks its messages by them.
create function chatter.lock_conversations(variadic p_conversation_ids uuid[]) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select from chatter.conversations as c
  where c.id = any(p_conversation_ids)
  order by c.id
  for no key update
$$;

comment on function chatter.lock_conversations(uuid[]) is
  'Locks conversations in id order; call it first in a transaction of several statements, to rule out deadlocks.';

-- Erases what was said and keeps what was spent: of a conversation, or of one run of it.
create function chatter.erase_texts(p_conversation_id uuid, p_execution_id uuid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
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
      and (p_execution_id is null or o.execution_id = p_execution_id)
  ) as k
  where m.id = k.id
    and (m.content, m.tool_calls, m.error_message, m.metadata)
      is distinct from (null::text, null::jsonb, null::text, k.figures);

  update chatter.tool_calls as t
  set error_message = null
  from chatter.workflow_executions as e
  where e.id = t.execution_id
    and e.conversation_id = p_conversation_id
    and (p_execution_id is null or e.id = p_execution_id)
    and t.error_message is not null;

  update chatter.workflow_executions as e
  set error_message = null, metadata = '{}'
  where e.conversation_id = p_conversation_id
    and (p_execution_id is null or e.id = p_execution_id)
    and (e.error_message is not null or e.metadata <> '{}');
end
$$;

comment on function chatter.erase_texts(uuid, uuid) is
  'Erases the texts of a conversation, or of one execution of it; its tokens and cost stay in the books.';

-- False if there is no such conversation; repeating it changes nothing.
create function chatter.erase_conversation(p_conversation_id uuid) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chatter.lock_conversations(p_conversation_id);

  update chatter.conversations as c
  set status = 'deleted', title = null, metadata = '{}'
  where c.id = p_conversation_id;
  if not found then
    return false;
  end if;

  -- A run that ends at this moment has not seen that the conversation is deleted: its end is
  -- waited for, and what it brought is seen by the statements after this one.
  perform from chatter.workflow_executions as e
    where e.conversation_id = p_conversation_id
    order by e.id
    for no key update;

  perform chatter.erase_texts(p_conversation_id, null);
  return true;
end
$$;

comment on function chatter.erase_conversation(uuid) is
  'Marks a conversation deleted and erases its texts; its tokens and cost stay in the books.';

-- A run that was under way when its conversation was deleted, or whose records came late, brings
-- texts along; they go when it ends, in whatever way. `security definer`, since the worker's
-- role, which ends what was abandoned, may not touch messages.
create function chatter.tg_workflow_executions__erase() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from chatter.conversations as c where c.id = new.conversation_id and c.status = 'deleted'
  ) then
    perform chatter.erase_texts(new.conversation_id, new.id);
  end if;
  return null;
end
$$;

comment on function chatter.tg_workflow_executions__erase() is
  'Erases the texts that a run brought to a conversation deleted meanwhile.';

create trigger _500_erase
  after insert or update of status on chatter.workflow_executions
  for each row
  when (new.status <> 'running')
  execute function chatter.tg_workflow_executions__erase();

comment on trigger _500_erase on chatter.workflow_executions is
  'Erases what the run brought to a deleted conversation.';

-- Messages that come when their run has ended are erased as they are booked (308), and a tool's
-- error here: nothing comes after them that would do it.
create function chatter.tg_tool_calls__erase() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_conversation_id uuid;
begin
  select c.id into v_conversation_id
  from chatter.workflow_executions as e
    join chatter.conversations as c on c.id = e.conversation_id
  where e.id = new.execution_id and e.status <> 'running' and c.status = 'deleted';
  if found then
    perform chatter.erase_texts(v_conversation_id, new.execution_id);
  end if;
  return null;
end
$$;

comment on function chatter.tg_tool_calls__erase() is
  'Erases the error of a tool whose run had ended, in a conversation deleted meanwhile.';

create trigger _500_erase
  after insert or update of error_message on chatter.tool_calls
  for each row
  when (new.error_message is not null)
  execute function chatter.tg_tool_calls__erase();

comment on trigger _500_erase on chatter.tool_calls is
  'Erases what comes to a deleted conversation when its run has ended.';

-- Mends totals that differ from their rows, which takes a session that switched
-- triggers off. Returns what it changed. Safe beside writers: a row is locked
-- first and recounted by a later statement, so it counts exactly the messages
-- whose deltas are already in; those still waiting for the lock add theirs after.
create function chatter.recount() returns table (mended_table text, mended_id uuid)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids uuid[];
  v_before text := coalesce(pg_catalog.current_setting('chatter.maintenance', true), '');
begin
  -- Opens the totals (160) until the function ends or fails. Not as a SET clause
  -- of the function: only a superuser may create that.
  perform pg_catalog.set_config('chatter.maintenance', 'on', true);

  select array_agg(locked.id) into v_ids
  from (
    select c.id
    from chatter.conversations as c
    order by c.id
    for no key update
  ) as locked;

  return query
  update chatter.conversations as c
  set message_count = r.message_count,
      prompt_tokens = r.prompt_tokens,
      completion_tokens = r.completion_tokens,
      total_tokens = r.total_tokens,
      total_cost = r.total_cost,
      unpriced_calls = r.unpriced_calls,
      last_message_at = r.last_message_at
  from (
    select
      k.id,
      count(m.id) filter (where m.kind = 'turn') as message_count,
      coalesce(sum(m.prompt_tokens), 0) as prompt_tokens,
      coalesce(sum(m.completion_tokens), 0) as completion_tokens,
      coalesce(sum(m.total_tokens), 0) as total_tokens,
      coalesce(sum(m.cost), 0) as total_cost,
      count(m.id) filter (where m.model_call and m.cost is null) as unpriced_calls,
      max(m.created_at) as last_message_at
    from unnest(v_ids) as k (id)
      left join chatter.messages as m on m.conversation_id = k.id
    group by k.id
  ) as r
  where c.id = r.id
    and (
      c.message_count, c.prompt_tokens, c.completion_tokens, c.total_tokens, c.total_cost,
      c.unpriced_calls, c.last_message_at
    ) is distinct from (
      r.message_count, r.prompt_tokens, r.completion_tokens, r.total_tokens, r.total_cost,
      r.unpriced_calls, r.last_message_at
    )
  returning 'conversations', c.id;

  select array_agg(locked.id) into v_ids
  from (
    select e.id
    from chatter.workflow_executions as e
    order by e.id
    for no key update
  ) as locked;

  return query
  update chatter.workflow_executions as e
  set model_calls = r.model_calls,
      tool_calls = r.tool_calls,
      prompt_tokens = r.prompt_tokens,
      completion_tokens = r.completion_tokens,
      total_tokens = r.total_tokens,
      total_cost = r.total_cost
  from (
    select
      k.id,
      count(m.id) filter (where m.model_call) as model_calls,
      (select count(*) from chatter.tool_calls as t where t.execution_id = k.id) as tool_calls,
      coalesce(sum(m.prompt_tokens), 0) as prompt_tokens,
      coalesce(sum(m.completion_tokens), 0) as completion_tokens,
      coalesce(sum(m.total_tokens), 0) as total_tokens,
      coalesce(sum(m.cost), 0) as total_cost
    from unnest(v_ids) as k (id)
      left join chatter.messages as m on m.execution_id = k.id
    group by k.id
  ) as r
  where e.id = r.id
    and (
      e.model_calls, e.tool_calls, e.prompt_tokens, e.completion_tokens, e.total_tokens, e.total_cost
    ) is distinct from (
      r.model_calls, r.tool_calls, r.prompt_tokens, r.completion_tokens, r.total_tokens, r.total_cost
    )
  returning 'workflow_executions', e.id;

  perform pg_catalog.set_config('chatter.maintenance', v_before, true);
end
$$;

comment on function chatter.recount() is
  'Mends totals that differ from their rows and returns what it changed; for owners, after triggers were switched off. Locks all conversations while it runs.';
