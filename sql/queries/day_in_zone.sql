select (chatter.clock() at time zone cast(:time_zone as text))::date - cast(:days as integer)
