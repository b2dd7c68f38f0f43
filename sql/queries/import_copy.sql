-- The columns are those of columns.py, in its order.
copy pg_temp.import_chunk (
  line, keyed, id, conversation, "user", "time", role, kind, content, tool_calls, tool_call_id,
  provider_used, model_used, prompt_tokens, completion_tokens, total_tokens, cache_read_tokens,
  cache_write_tokens, reasoning_tokens, cost, cost_source, usage_status, usage, response_time_ms,
  time_to_first_token_ms, finish_reason, status, error_type, error_message, correlation_id, metadata
)
from stdin
