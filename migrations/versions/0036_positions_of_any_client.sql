-- A client whose standard_conforming_strings is off could read no events.
create or replace function chatter.parse_position(p_position text) returns chatter.event_position
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stream chatter.event_stream;
  v_parts text[] := pg_catalog.string_to_array(p_position, '.');
  v chatter.event_position;
begin
  select * into v_stream from chatter.event_stream;
  -- No backslashes: with standard_conforming_strings off they would be escapes of the string.
  if p_position !~ (
      '^[0-9a-f]{12}[.][0-9]{1,19}:[0-9]{1,19}:[0-9,]*'
      || '([.][0-9]{1,19}:[0-9]{1,19}:[0-9,]*[.][0-9]{1,18})?$'
    )
    or v_parts[1] <> chatter.stream_name(v_stream.id)
  then
    raise exception 'this is no position in the events of this database'
      using
        errcode = 'invalid_parameter_value',
        hint = 'Positions come from chatter.events_now() and chatter.events_after(), or as id of an SSE event.';
  end if;
  begin
    v := row(v_parts[2]::pg_snapshot, v_parts[3]::pg_snapshot, v_parts[4]::bigint);
    if not pg_catalog.pg_is_in_recovery() then
      -- Fails with invalid_parameter_value for a transaction that is still to come.
      perform pg_catalog.pg_xact_status((chatter.position_end(v)::text::numeric - 1)::text::xid8);
    end if;
  exception
    when invalid_text_representation or numeric_value_out_of_range or invalid_parameter_value then
      raise exception 'this is no position in the events of this database'
        using errcode = 'invalid_parameter_value';
  end;

  if pg_catalog.pg_snapshot_xmin(v.p) < v_stream.pruned_before then
    raise exception 'events after this position were removed by retention'
      using
        errcode = 'CH410',
        hint = 'Begin anew at chatter.events_oldest().';
  end if;
  return v;
end
$$;
