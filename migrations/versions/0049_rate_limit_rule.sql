-- Refusals of a caller are noted once a minute by each server: 20 in 15 minutes nobody could reach on
-- one. Who has set another threshold keeps it.
update chatter.security_rules set threshold = 10
where name = 'rate_limits_per_address' and threshold = 20;
