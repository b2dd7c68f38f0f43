-- Sums of the totals of all the import's conversations. By array, which is linear
-- whatever the planner believes: an autoanalyze in mid-import sees none of the rows
-- that this transaction wrote and takes the table for empty.
select
  coalesce(sum(c.prompt_tokens), 0) as prompt_tokens,
  coalesce(sum(c.completion_tokens), 0) as completion_tokens,
  coalesce(sum(c.total_tokens), 0) as total_tokens,
  coalesce(sum(c.total_cost), 0) as cost,
  coalesce(sum(c.unpriced_calls), 0) as unpriced_calls
from chatter.conversations as c
where c.id = any(array(select t.id from pg_temp.import_targets as t))
