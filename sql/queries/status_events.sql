-- How many events are kept.
select count(*) as events
from chatter.events as e
