select (analytics.moment('today', :time_zone) at time zone cast(:time_zone as text))::date - cast(:days as integer)
