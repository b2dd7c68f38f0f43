-- A change of many messages took time by their square, in a session that had changed a single
-- one before: ten minutes and more for a hundred thousand rows.
create or replace function chatter.tg_messages__events_of_change() returns trigger
language plpgsql volatile security definer
set search_path = ''
as $$
begin
  if tg_op = 'DELETE' then
    perform chatter.record_conversations_updated(array(select o.conversation_id from old_rows as o));
  else
    -- By grouping, not by joining old and new rows: a function's plan is made at its first
    -- call and kept, and one for a single row would compare each of a hundred thousand rows
    -- with each.
    perform chatter.record_conversations_updated(array(
      select r.conversation_id
      from (
        select
          -1 as sign, o.id, o.conversation_id, o.kind, o.model_call, o.prompt_tokens,
          o.completion_tokens, o.total_tokens, o.cost
        from old_rows as o
        union all
        select
          1, n.id, n.conversation_id, n.kind, n.model_call, n.prompt_tokens,
          n.completion_tokens, n.total_tokens, n.cost
        from new_rows as n
      ) as r
      group by
        r.id, r.conversation_id, r.kind, r.model_call, r.prompt_tokens, r.completion_tokens,
        r.total_tokens, r.cost
      having sum(r.sign) <> 0
    ));
  end if;
  return null;
end
$$;

