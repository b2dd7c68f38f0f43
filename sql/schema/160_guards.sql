-- Guards: what a trigger can't follow, or would make a total differ from its
-- rows, is refused with a word on what to do instead. The owner and superusers
-- are refused too; column grants (900) stop everybody else earlier.
--
-- The one way around is `set chatter.maintenance = 'on'`, used by the functions
-- of 170. It opens the totals, never TRUNCATE.

create function chatter.tg_refuse_totals() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Depth 1 is a statement of a client; our own triggers update from depth 2 on.
  -- Asked here and not in the trigger's WHEN, which Postgres would parse anew for
  -- every statement: that took longer than this call.
  if tg_op = 'UPDATE' and (
    pg_catalog.pg_trigger_depth() > 1
    or pg_catalog.current_setting('chatter.maintenance', true) = 'on'
  ) then
    return null;
  end if;
  raise exception 'totals of chatter.% are kept by triggers and can''t be written', tg_table_name
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      hint = 'Change the rows of chatter.messages or chatter.tool_calls; the totals follow. '
        'If they differ from their rows, run: select * from chatter.recount();';
end
$$;

comment on function chatter.tg_refuse_totals() is 'Refuses a statement that writes a total.';

create trigger _000_refuse_totals_update
  before update of
    message_count, prompt_tokens, completion_tokens, total_tokens, total_cost, unpriced_calls,
    last_message_at
  on chatter.conversations
  for each statement
  execute function chatter.tg_refuse_totals();

create trigger _000_refuse_totals_insert
  before insert on chatter.conversations
  for each row
  when (
    (new.message_count, new.prompt_tokens, new.completion_tokens, new.total_tokens, new.unpriced_calls)
      is distinct from (0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint)
    or new.total_cost <> 0
    or new.last_message_at is not null
  )
  execute function chatter.tg_refuse_totals();

create trigger _000_refuse_totals_update
  before update of
    model_calls, tool_calls, prompt_tokens, completion_tokens, total_tokens, total_cost
  on chatter.workflow_executions
  for each statement
  execute function chatter.tg_refuse_totals();

create trigger _000_refuse_totals_insert
  before insert on chatter.workflow_executions
  for each row
  when (
    (new.model_calls, new.tool_calls, new.prompt_tokens, new.completion_tokens, new.total_tokens)
      is distinct from (0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint)
    or new.total_cost <> 0
  )
  execute function chatter.tg_refuse_totals();

-- The parents' side of the references of messages (130, 150). A message that
-- is being inserted holds or awaits the parent's lock, so the deletion either
-- sees it here or makes it fail there.
create function chatter.tg_refuse_orphans() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parent uuid;
  v_column text := case tg_table_name
    when 'conversations' then 'conversation_id'
    else 'execution_id'
  end;
begin
  if tg_table_name = 'conversations' then
    select o.id into v_parent
    from old_rows as o
    where exists (select from chatter.messages as m where m.conversation_id = o.id)
    limit 1;
  else
    select o.id into v_parent
    from old_rows as o
    where exists (select from chatter.messages as m where m.execution_id = o.id)
    limit 1;
  end if;

  if v_parent is not null then
    raise exception 'delete on table "%" violates foreign key constraint "messages_%_fkey" on table "messages"',
      tg_table_name, v_column
      using
        errcode = 'foreign_key_violation',
        detail = pg_catalog.format('Key (id)=(%s) is still referenced from table "messages".', v_parent),
        hint = 'Spent money stays in the books: chatter.erase_conversation() erases the texts and keeps '
          'the figures. To correct the books, delete the messages first.',
        schema = 'chatter',
        table = 'messages',
        constraint = pg_catalog.format('messages_%s_fkey', v_column);
  end if;
  return null;
end
$$;

comment on function chatter.tg_refuse_orphans() is
  'Refuses to delete a conversation or an execution that still has messages.';

create trigger _100_refuse_orphans
  after delete on chatter.conversations
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_refuse_orphans();

create trigger _100_refuse_orphans
  after delete on chatter.workflow_executions
  referencing old table as old_rows
  for each statement
  execute function chatter.tg_refuse_orphans();

create function chatter.tg_refuse_new_id() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the id of a row of chatter.% can''t change: messages refer to it', tg_table_name
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      column = 'id',
      hint = 'Insert a new row and move the messages to it; their totals move along.';
end
$$;

comment on function chatter.tg_refuse_new_id() is 'Refuses to change an id that messages refer to.';

-- By column: a statement that doesn't name the id passes without a look.
create trigger _100_refuse_new_id
  before update of id on chatter.conversations
  for each statement
  execute function chatter.tg_refuse_new_id();

create trigger _100_refuse_new_id
  before update of id on chatter.workflow_executions
  for each statement
  execute function chatter.tg_refuse_new_id();

comment on trigger _100_refuse_orphans on chatter.conversations is 'Refuses to delete a conversation that has messages.';
comment on trigger _100_refuse_orphans on chatter.workflow_executions is 'Refuses to delete an execution that has messages.';
comment on trigger _100_refuse_new_id on chatter.conversations is 'Refuses to change an id that messages refer to.';
comment on trigger _100_refuse_new_id on chatter.workflow_executions is 'Refuses to change an id that messages refer to.';

create function chatter.tg_refuse_truncate() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'TRUNCATE of chatter.% is refused: no row trigger sees it, so totals would keep what is gone',
    tg_table_name
    using
      errcode = 'object_not_in_prerequisite_state',
      schema = tg_table_schema,
      table = tg_table_name,
      hint = 'Use DELETE, which is counted. To start afresh, drop the schema and migrate again.';
end
$$;

comment on function chatter.tg_refuse_truncate() is 'Refuses TRUNCATE, which totals could not follow.';

create trigger _000_refuse_truncate before truncate on chatter.users
  for each statement execute function chatter.tg_refuse_truncate();
create trigger _000_refuse_truncate before truncate on chatter.conversations
  for each statement execute function chatter.tg_refuse_truncate();
create trigger _000_refuse_truncate before truncate on chatter.workflow_executions
  for each statement execute function chatter.tg_refuse_truncate();
create trigger _000_refuse_truncate before truncate on chatter.messages
  for each statement execute function chatter.tg_refuse_truncate();
create trigger _000_refuse_truncate before truncate on chatter.tool_calls
  for each statement execute function chatter.tg_refuse_truncate();

comment on trigger _000_refuse_totals_update on chatter.conversations is 'Refuses a client''s write to a total.';
comment on trigger _000_refuse_totals_insert on chatter.conversations is 'Refuses a row that brings totals along.';
comment on trigger _000_refuse_totals_update on chatter.workflow_executions is 'Refuses a client''s write to a total.';
comment on trigger _000_refuse_totals_insert on chatter.workflow_executions is 'Refuses a row that brings totals along.';
comment on trigger _000_refuse_truncate on chatter.users is 'Refuses TRUNCATE.';
comment on trigger _000_refuse_truncate on chatter.conversations is 'Refuses TRUNCATE.';
comment on trigger _000_refuse_truncate on chatter.workflow_executions is 'Refuses TRUNCATE.';
comment on trigger _000_refuse_truncate on chatter.messages is 'Refuses TRUNCATE.';
comment on trigger _000_refuse_truncate on chatter.tool_calls is 'Refuses TRUNCATE.';
