-- Books the rows of the chunk. Rows that are there already stay as they are; of
-- two with the same id the first one stays, hence the order.
insert into chatter.messages (
  id, conversation_id, role, kind, content, tool_calls, tool_call_id, provider_used, model_used,
  prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, cache_write_tokens,
  reasoning_tokens, cost, cost_source, usage_status, usage, response_time_ms,
  time_to_first_token_ms, finish_reason, status, error_type, error_message, correlation_id,
  metadata, created_at
)
select
  b.id, b.conversation_id, b.role, b.kind, b.content, b.tool_calls, b.tool_call_id,
  b.provider_used, b.model_used, b.prompt_tokens, b.completion_tokens, b.total_tokens,
  b.cache_read_tokens, b.cache_write_tokens, b.reasoning_tokens, b.cost, b.cost_source,
  b.usage_status, b.usage, b.response_time_ms, b.time_to_first_token_ms, b.finish_reason,
  b.status, b.error_type, b.error_message, b.correlation_id, b.metadata, b.created_at
from pg_temp.import_bookable as b
order by b.line
on conflict (id) do nothing
