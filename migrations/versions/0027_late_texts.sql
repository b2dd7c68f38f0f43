-- What comes to a deleted conversation after its texts were erased is erased, too. (Who may call what is new
-- is granted in 0031.)
-- Erases what was said and keeps what was spent: of a conversation, or of one run of it.
create function chatter.erase_texts(p_conversation_id uuid, p_execution_id uuid) returns void
language plpgsql volatile
set search_path = ''
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
set search_path = ''
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
  after update of status on chatter.workflow_executions
  for each row
  when (new.status <> 'running')
  execute function chatter.tg_workflow_executions__erase();

comment on trigger _500_erase on chatter.workflow_executions is
  'Erases what the run brought to a deleted conversation.';

-- Those that texts came to before.
select chatter.erase_conversation(c.id)
from chatter.conversations as c
where c.status = 'deleted'
  and exists (
    select from chatter.messages as m
    where m.conversation_id = c.id
      and (m.content is not null or m.tool_calls is not null or m.error_message is not null)
  )
order by c.id;
