-- Conversations that cost far more than their user's usual ones.
--
-- Ten times the user's median, among users with at least five conversations that cost something.
-- The first 20, or as many as limit says.
--
--   psql -v limit=10 -f sql/analytics/anomalies.sql

\if :{?limit} \else \set limit 20 \endif

select
  c.id as conversation_id, c.external_id as conversation, p.external_id as "user",
  trim_scale(c.total_cost) as cost,
  trim_scale(usual.median) as usual_cost,
  round(c.total_cost / usual.median, 1) as times_usual
from (
  select
    v.user_id,
    -- The middle one, or between the two there are: exact, where percentile_cont has floats.
    0.5 * (
      percentile_disc(0.5) within group (order by v.total_cost)
      + percentile_disc(0.5) within group (order by v.total_cost desc)
    ) as median
  from chatter.conversations as v
  where v.total_cost > 0
  group by v.user_id
  having count(*) >= 5
) as usual
  -- Those of nobody have each other for usual; by `is not distinct from` all would meet all.
  join chatter.conversations as c
    on coalesce(c.user_id, uuid '00000000-0000-0000-0000-000000000000')
      = coalesce(usual.user_id, uuid '00000000-0000-0000-0000-000000000000')
  left join chatter.users as p on p.id = c.user_id
where c.total_cost > 10 * usual.median
order by times_usual desc, c.id
limit :'limit'::bigint;
