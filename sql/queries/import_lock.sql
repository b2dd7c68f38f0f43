-- Locks the conversations that others can see, in id order as the totals triggers
-- do. Locked all at once and before any of their rows is booked, they rule out
-- deadlocks with other writers. Returns the sums of their totals.
select
  coalesce(sum(l.prompt_tokens), 0) as prompt_tokens,
  coalesce(sum(l.completion_tokens), 0) as completion_tokens,
  coalesce(sum(l.total_tokens), 0) as total_tokens,
  coalesce(sum(l.total_cost), 0) as cost,
  coalesce(sum(l.unpriced_calls), 0) as unpriced_calls
from (
  select c.prompt_tokens, c.completion_tokens, c.total_tokens, c.total_cost, c.unpriced_calls
  from chatter.conversations as c
  where c.id = any(array(select t.id from pg_temp.import_targets as t where not t.made))
  order by c.id
  for no key update
) as l
