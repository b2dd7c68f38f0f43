-- How many users had a message, by day, week and month (UTC).
--
--
--   psql  -f sql/analytics/active_users.sql

select a.period, a.starts, a.users, trim_scale(a.cost) as cost
from analytics.active_users_live as a
order by a.starts desc, a.period;
