-- What a run's calls of unknown price cost is in no total: their number is told beside it.
create or replace function chatter.event_payload(p_event chatter.events) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v jsonb;
begin
  if p_event.payload is not null then
    return p_event.payload;
  elsif p_event.event_type in ('message_created', 'model_response') then
    select pg_catalog.jsonb_build_object(
      'v', 1, 'message_id', m.id, 'role', m.role, 'kind', m.kind, 'status', m.status,
      'provider', m.provider_used, 'model', m.model_used, 'prompt_tokens', m.prompt_tokens,
      'completion_tokens', m.completion_tokens, 'total_tokens', m.total_tokens,
      'cost', m.cost::text, 'usage_status', m.usage_status,
      'response_time_ms', m.response_time_ms, 'error_type', m.error_type
    )
    into v
    from chatter.messages as m
    where m.id = p_event.subject_id;
    return coalesce(
      v, pg_catalog.jsonb_build_object('v', 1, 'message_id', p_event.subject_id, 'gone', true)
    );
  elsif p_event.event_type = 'tool_called' then
    select pg_catalog.jsonb_build_object(
      'v', 1, 'tool_call', t.id, 'message_id', t.message_id, 'tool_call_id', t.tool_call_id,
      'tool_name', t.tool_name, 'status', t.status, 'duration_ms', t.duration_ms
    )
    into v
    from chatter.tool_calls as t
    where t.id = p_event.subject_id;
    return coalesce(
      v, pg_catalog.jsonb_build_object('v', 1, 'tool_call', p_event.subject_id, 'gone', true)
    );
  elsif p_event.category = 'workflow' then
    select pg_catalog.jsonb_build_object(
      'v', 1, 'workflow_name', x.workflow_name, 'status', x.status,
      'started_at', x.started_at, 'finished_at', x.finished_at,
      'model_calls', x.model_calls, 'tool_calls', x.tool_calls,
      'total_tokens', x.total_tokens, 'total_cost', x.total_cost::text,
      'unpriced_calls', (
        select count(*) from chatter.messages as u
        where u.execution_id = x.id and u.model_call and u.cost is null
      ),
      'error_type', x.error_type
    )
    into v
    from chatter.workflow_executions as x
    where x.id = p_event.execution_id;
    return coalesce(v, '{"v": 1, "gone": true}');
  end if;
  return '{"v": 1}';
end
$$;
