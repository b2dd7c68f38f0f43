-- Totals of executions equal the sum over their messages and tool calls.
-- Mend: select * from chatter.recount();
select
  e.id as execution_id,
  t.total,
  t.stored,
  t.recounted
from chatter.workflow_executions as e
  left join lateral (
    select
      count(*) filter (where m.model_call) as model_calls,
      coalesce(sum(m.prompt_tokens), 0) as prompt_tokens,
      coalesce(sum(m.completion_tokens), 0) as completion_tokens,
      coalesce(sum(m.total_tokens), 0) as total_tokens,
      coalesce(sum(m.cost), 0) as total_cost
    from chatter.messages as m
    where m.execution_id = e.id
  ) as r on true
  cross join lateral (
    values
      ('model_calls', e.model_calls::text, r.model_calls::text),
      (
        'tool_calls',
        e.tool_calls::text,
        (select count(*)::text from chatter.tool_calls as t where t.execution_id = e.id)
      ),
      ('prompt_tokens', e.prompt_tokens::text, r.prompt_tokens::text),
      ('completion_tokens', e.completion_tokens::text, r.completion_tokens::text),
      ('total_tokens', e.total_tokens::text, r.total_tokens::text),
      ('total_cost', trim_scale(e.total_cost)::text, trim_scale(r.total_cost)::text)
  ) as t (total, stored, recounted)
where t.stored is distinct from t.recounted
order by e.id, t.total
