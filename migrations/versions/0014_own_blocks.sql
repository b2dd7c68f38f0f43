-- Who acts for a user is told of that user's block alone.

create or replace function chatter.blocked_until(p_ip_address inet, p_user_id uuid) returns timestamptz
language sql stable security definer
set search_path = ''
as $$
  select max(a.blocked_until)
  from chatter.alerts as a
  where (
      (a.subject = 'ip_address' and a.subject_value = host(p_ip_address))
      or (a.subject = 'user_id' and a.subject_value = p_user_id::text)
    )
    and a.blocked_until > chatter.clock()
    and (
      nullif(pg_catalog.current_setting('chatter.user_id', true), '') is null
      or (a.subject = 'user_id' and a.subject_value = pg_catalog.current_setting('chatter.user_id', true))
    )
$$;
