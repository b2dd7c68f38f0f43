-- What comes to a deleted conversation when its run has ended loses its texts at once.
create or replace function chatter.tg_messages__book() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sign smallint := tg_argv[0]::smallint;
  v_message record;
  v_rows smallint := 0;
  v_deltas chatter.message_delta[];
  v_conversation chatter.conversations;
  v_workflow text := '';
  v_run_status text;
  v_deleted uuid[];
  v_late record;
begin
  if tg_op = 'INSERT' then
    -- Is it one? Named columns, so that no text of 8 MiB is copied.
    for v_message in
      select
        n.id, n.conversation_id, n.execution_id, n.kind, n.model_call, n.status, n.usage_status,
        n.provider_used, n.model_used, n.prompt_tokens, n.completion_tokens, n.total_tokens,
        n.cache_read_tokens, n.cache_write_tokens, n.reasoning_tokens, n.cost,
        n.response_time_ms, n.time_to_first_token_ms, n.correlation_id, n.created_at
      from changed_rows as n
      limit 2
    loop
      v_rows := v_rows + 1;
    end loop;

    if v_rows = 0 then
      return null;
    end if;

    if v_rows = 1 then
      -- The conversation first, then the run: the lock order of 150.
      update chatter.conversations as c
      set message_count = c.message_count + (v_message.kind = 'turn')::integer,
          prompt_tokens = c.prompt_tokens + coalesce(v_message.prompt_tokens, 0),
          completion_tokens = c.completion_tokens + coalesce(v_message.completion_tokens, 0),
          total_tokens = c.total_tokens + coalesce(v_message.total_tokens, 0),
          total_cost = c.total_cost + coalesce(v_message.cost, 0),
          unpriced_calls = c.unpriced_calls + (v_message.model_call and v_message.cost is null)::integer,
          last_message_at = greatest(c.last_message_at, v_message.created_at)
      where c.id = v_message.conversation_id
      returning c.* into v_conversation;
      if not found then
        perform chatter.refuse_missing_parent(
          'conversation_id', 'conversations', v_message.conversation_id::text
        );
      end if;

      if v_message.execution_id is not null then
        update chatter.workflow_executions as e
        set model_calls = e.model_calls + v_message.model_call::integer,
            prompt_tokens = e.prompt_tokens + coalesce(v_message.prompt_tokens, 0),
            completion_tokens = e.completion_tokens + coalesce(v_message.completion_tokens, 0),
            total_tokens = e.total_tokens + coalesce(v_message.total_tokens, 0),
            total_cost = e.total_cost + coalesce(v_message.cost, 0)
        where e.id = v_message.execution_id
        returning e.workflow_name, e.status into v_workflow, v_run_status;
        if not found then
          perform chatter.refuse_missing_parent(
            'execution_id', 'workflow_executions', v_message.execution_id::text
          );
        end if;
      end if;

      insert into chatter.events (
        event_type, category, user_id, conversation_id, execution_id, subject_id, correlation_id,
        payload
      )
      select
        k.event_type, k.category, v_conversation.user_id, v_message.conversation_id, k.execution_id,
        k.subject_id, k.correlation_id, k.payload
      from (
        values
          ('message_created', 'conversation', v_message.execution_id, v_message.id, v_message.correlation_id, null::jsonb, true),
          ('model_response', 'workflow', v_message.execution_id, v_message.id, v_message.correlation_id, null, v_message.model_call),
          (
            'conversation_updated', 'conversation', null, null, null,
            chatter.conversation_payload(v_conversation), true
          )
      ) as k (event_type, category, execution_id, subject_id, correlation_id, payload, wanted)
      where k.wanted;
      perform chatter.ring_bell();

      insert into analytics.deltas (
        bucket, user_id, workflow_name, provider, model, kind,
        messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
        cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage,
        sign, response_bins, first_token_bins, conversation_ids
      )
      values (
        analytics.quarter_hour(v_message.created_at),
        v_conversation.user_id,
        v_workflow,
        coalesce(v_message.provider_used, ''),
        coalesce(v_message.model_used, ''),
        v_message.kind,
        1,
        (v_message.kind = 'turn')::integer,
        v_message.model_call::integer,
        (v_message.model_call and v_message.status <> 'completed')::integer,
        coalesce(v_message.prompt_tokens, 0),
        coalesce(v_message.completion_tokens, 0),
        coalesce(v_message.total_tokens, 0),
        coalesce(v_message.cache_read_tokens, 0),
        coalesce(v_message.cache_write_tokens, 0),
        coalesce(v_message.reasoning_tokens, 0),
        coalesce(v_message.cost, 0),
        (v_message.model_call and v_message.cost is null)::integer,
        (v_message.model_call and v_message.usage_status is not distinct from 'unknown')::integer,
        1,
        case
          when v_message.model_call and v_message.response_time_ms is not null
            then array[analytics.latency_bin(v_message.response_time_ms)]
        end,
        case
          when v_message.model_call and v_message.time_to_first_token_ms is not null
            then array[analytics.latency_bin(v_message.time_to_first_token_ms)]
        end,
        case when v_message.cost <> 0 then array[v_message.conversation_id] end
      );

      -- Of a run that ended before: nothing comes after this that would erase its texts (170).
      if v_conversation.status = 'deleted' and v_run_status is distinct from 'running' then
        perform chatter.erase_texts(v_message.conversation_id, v_message.execution_id);
      end if;
      return null;
    end if;

    -- Several: the same by sets.
    select array_agg(d::chatter.message_delta) into v_deltas
    from (
      select
        r.conversation_id,
        r.execution_id,
        count(*) filter (where r.kind = 'turn'),
        count(*) filter (where r.model_call),
        coalesce(sum(r.prompt_tokens), 0)::bigint,
        coalesce(sum(r.completion_tokens), 0)::bigint,
        coalesce(sum(r.total_tokens), 0)::bigint,
        coalesce(sum(r.cost), 0),
        count(*) filter (where r.model_call and r.cost is null),
        null::timestamptz,
        max(r.created_at)
      from changed_rows as r
      group by r.conversation_id, r.execution_id
    ) as d;
    perform chatter.apply_message_deltas(v_deltas);

    -- message_created for each, model_response besides for model calls, then
    -- conversation_updated once for each conversation. One insert for all three draws the
    -- ids in the order of its parts.
    insert into chatter.events (
      event_type, category, user_id, conversation_id, execution_id, subject_id, correlation_id,
      payload
    )
    select
      k.event_type, k.category, c.user_id, n.conversation_id, n.execution_id, n.id, n.correlation_id,
      null::jsonb
    from changed_rows as n
      join chatter.conversations as c on c.id = n.conversation_id
      cross join lateral (
        values ('message_created', 'conversation', true), ('model_response', 'workflow', n.model_call)
      ) as k (event_type, category, wanted)
    where k.wanted
    union all
    (
      select
        'conversation_updated', 'conversation', c.user_id, c.id, null, null, null,
        chatter.conversation_payload(c)
      from chatter.conversations as c
      where c.id = any(array(select n.conversation_id from changed_rows as n))
      order by c.id
    );
    perform chatter.ring_bell();
  end if;

  insert into analytics.deltas (
    bucket, user_id, workflow_name, provider, model, kind,
    messages, turns, calls, failed_calls, prompt_tokens, completion_tokens, total_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, unpriced_calls, unknown_usage,
    sign, response_bins, first_token_bins, conversation_ids
  )
  select
    analytics.quarter_hour(r.created_at),
    -- Parents that go in the same statement are in former_parents.
    case
      when c.id is not null then c.user_id
      else (select f.user_id from analytics.former_parents as f where f.id = r.conversation_id)
    end,
    case
      when e.id is not null then e.workflow_name
      when r.execution_id is null then ''
      else coalesce(
        (select f.workflow_name from analytics.former_parents as f where f.id = r.execution_id), ''
      )
    end,
    coalesce(r.provider_used, ''),
    coalesce(r.model_used, ''),
    r.kind,
    v_sign * count(*),
    v_sign * count(*) filter (where r.kind = 'turn'),
    v_sign * count(*) filter (where r.model_call),
    v_sign * count(*) filter (where r.model_call and r.status <> 'completed'),
    v_sign * coalesce(sum(r.prompt_tokens), 0),
    v_sign * coalesce(sum(r.completion_tokens), 0),
    v_sign * coalesce(sum(r.total_tokens), 0),
    v_sign * coalesce(sum(r.cache_read_tokens), 0),
    v_sign * coalesce(sum(r.cache_write_tokens), 0),
    v_sign * coalesce(sum(r.reasoning_tokens), 0),
    v_sign * coalesce(sum(r.cost), 0),
    v_sign * count(*) filter (where r.model_call and r.cost is null),
    v_sign * count(*) filter (where r.model_call and r.usage_status is not distinct from 'unknown'),
    v_sign,
    array_agg(analytics.latency_bin(r.response_time_ms))
      filter (where r.model_call and r.response_time_ms is not null),
    array_agg(analytics.latency_bin(r.time_to_first_token_ms))
      filter (where r.model_call and r.time_to_first_token_ms is not null),
    -- With duplicates: leaving them out would sort the rows.
    array_agg(r.conversation_id) filter (where r.cost <> 0)
  from changed_rows as r
    left join chatter.conversations as c on c.id = r.conversation_id
    left join chatter.workflow_executions as e on e.id = r.execution_id
  -- A row without a parent, from a session without triggers, was never counted.
  where c.id is not null
    or exists (select from analytics.former_parents as f where f.id = r.conversation_id)
  group by 1, 2, 3, 4, 5, 6;

  if tg_op = 'INSERT' then
    -- By key, as the payloads are read above: hardly ever is there one.
    select array_agg(c.id) into v_deleted
    from chatter.conversations as c
    where c.id = any(array(select n.conversation_id from changed_rows as n))
      and c.status = 'deleted';
    if v_deleted is not null then
      for v_late in
        select distinct r.conversation_id, r.execution_id
        from changed_rows as r
          left join chatter.workflow_executions as e on e.id = r.execution_id
        where r.conversation_id = any(v_deleted) and e.status is distinct from 'running'
        order by r.conversation_id, r.execution_id
      loop
        perform chatter.erase_texts(v_late.conversation_id, v_late.execution_id);
      end loop;
    end if;
  end if;
  return null;
end
$$;

comment on function chatter.tg_messages__book() is
  'Books new messages: totals, events, deltas; of changed and deleted ones the deltas. '
  'Erases what comes to a deleted conversation when its run has ended.';

create or replace trigger _500_erase
  after insert or update of status on chatter.workflow_executions
  for each row
  when (new.status <> 'running')
  execute function chatter.tg_workflow_executions__erase();

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

revoke all on function chatter.tg_tool_calls__erase() from public;

-- What came before.
do $$
declare
  v_late record;
begin
  for v_late in
    select m.conversation_id, m.execution_id
    from chatter.messages as m
      join chatter.conversations as c on c.id = m.conversation_id
      left join chatter.workflow_executions as e on e.id = m.execution_id
    where c.status = 'deleted' and e.status is distinct from 'running' and m.content is not null
    union
    select e.conversation_id, e.id
    from chatter.workflow_executions as e
      join chatter.conversations as c on c.id = e.conversation_id
    where c.status = 'deleted' and e.status <> 'running'
    order by 1, 2
  loop
    perform chatter.erase_texts(v_late.conversation_id, v_late.execution_id);
  end loop;
end
$$;
