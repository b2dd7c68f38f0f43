-- A line of a report whose calls all have no known price has no cost; it had one of 0. (Who may ask for it
-- is granted in 0031.)
-- Of calls without any known price the sum is 0, which is no cost. What other calls of the same
-- line cost is told, beside the number of those that have none.
create function analytics.known_cost(p_cost numeric, p_calls numeric, p_unpriced_calls numeric)
returns numeric
language sql immutable
as $$
  select case when p_cost = 0 and p_calls > 0 and p_unpriced_calls >= p_calls then null else trim_scale(p_cost) end
$$;

comment on function analytics.known_cost(numeric, numeric, numeric) is
  'The cost of a line of a report, in US dollars: NULL where none of its calls has a known one.';
