-- A time zone written as an offset is refused by SQL, too.
-- Where clocks are set back over midnight that comes twice (Havana, the Azores), and Postgres takes
-- the second: the day begins with the first. PL/pgSQL, because it is planned once a session.
create or replace function analytics.moment(p_time text, p_time_zone text) returns timestamptz
language plpgsql stable
as $$
declare
  v_local timestamp := analytics.local_time(p_time, p_time_zone);
  v_at timestamptz := v_local at time zone p_time_zone;
  v_before timestamptz := v_at - interval '3 hours';
  v_first timestamptz;
begin
  -- Postgres reads an offset as POSIX does, UTC+5 as five hours west of Greenwich. The names with a
  -- digit that there are stay: Etc/GMT-5, GMT0, EST5EDT and the like.
  if p_time_zone ~ '[0-9]' and p_time_zone !~* '^(etc/.+|gmt[-+]?0|(est5e|cst6c|mst7m|pst8p)dt)$' then
    raise exception
      'No time zone %; names are like UTC or Europe/Berlin, and the view pg_timezone_names has them all.',
      p_time_zone
    using errcode = 'CH422';
  end if;
  if lower(p_time) = 'now' then
    return now();
  end if;
  -- Postgres would read over it.
  if p_time ~* '[0-9]:?[0-9]{2}([.][0-9]+)? *([-+][0-9][0-9:]*|z|utc|gmt|[a-z_]+/[a-z_/]+) *$' then
    raise exception 'A local time of % has no offset or time zone of its own: %.', p_time_zone, p_time
    using errcode = 'CH422', hint = 'Leave it out, or ask for that time_zone.';
  end if;
  -- If the clocks went on as they did before.
  v_first := v_before + (v_local - (v_before at time zone p_time_zone));
  if v_first < v_at and v_first at time zone p_time_zone = v_local then
    return v_first;
  end if;
  return v_at;
end
$$;
