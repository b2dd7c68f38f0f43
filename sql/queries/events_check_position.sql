-- Fails if it is none (22023) or retention has passed it by (CH410).
select chatter.parse_position($1);
