-- An offset is refused as a time zone by SQL, too, and any zone in a local time.
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
  if lower(p_time) = 'now' then
    return now();
  end if;
  -- Postgres reads an offset as POSIX does, UTC+5 as five hours west of Greenwich. These are the
  -- names with a digit that there are; who writes rules with commas knows what they mean.
  if p_time_zone ~ '^[^,]*[0-9][^,]*$'
    and p_time_zone !~* '^(etc/gmt(0|[+]([0-9]|1[0-2])|-([0-9]|1[0-4]))|gmt[-+]?0|(est5e|cst6c|mst7m|pst8p)dt)$'
  then
    raise exception
      'No time zone %; names are like UTC or Europe/Berlin, and the view pg_timezone_names has them all.',
      p_time_zone
    using errcode = 'CH422';
  end if;
  -- Postgres would read over an offset, and over a word that is no part of a date.
  if p_time ~* '[+]|-.*-.*-|:[0-9].*-|[t ][0-9]{6}([.][0-9]+)? *-'
    or regexp_replace(
      translate(p_time, '0123456789', '          '),
      '[[:<:]](t|am|pm|now|today|yesterday|tomorrow|epoch|infinity|ad|bc|jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?'
      '|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?|dec(ember)?|mon(day)?|tue(s(day)?)?'
      '|wed(nesday)?|thu(rs?(day)?)?|fri(day)?|sat(urday)?|sun(day)?)[[:>:]]',
      '', 'gi'
    ) ~* '[a-z]'
  then
    raise exception 'A local time of % is a date or time, with no offset or time zone of its own: %.',
      p_time_zone, p_time
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
