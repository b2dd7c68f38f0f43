-- What takes less than 1 ms is in the first bin, and reads as that: said wherever it is said how far off they are.
comment on function analytics.bin_ms(smallint) is 'The middle of a histogram bin, in milliseconds: at most 4.5 % off, 1 ms at least.';

do $do$
declare
  v_statement text;
begin
  for v_statement in
    select
      format(
        'comment on %s analytics.%s is %L',
        case
          when d.objsubid > 0 then 'column'
          when c.relkind = 'm' then 'materialized view'
          else 'view'
        end,
        quote_ident(c.relname) || coalesce('.' || quote_ident(a.attname), ''),
        replace(d.description, 'at most 4.5 % off', 'at most 4.5 % off, 1 ms at least')
      )
    from pg_description as d
      join pg_class as c on c.oid = d.objoid and c.relnamespace = 'analytics'::regnamespace
      left join pg_attribute as a on a.attrelid = c.oid and a.attnum = d.objsubid and d.objsubid > 0
    where d.classoid = 'pg_class'::regclass and d.description like '%at most 4.5 \% off%'
  loop
    execute v_statement;
  end loop;
end
$do$;
