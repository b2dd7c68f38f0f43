-- Functions look into pg_catalog first and into the caller's temporary schema last. With an empty
-- search_path Postgres looks for types in the temporary schema before all others: a caller's
-- own "uuid", a domain whose check calls what the caller likes, ran with the rights of the
-- owner of the schema.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid
    from pg_catalog.pg_proc as p
    where p.pronamespace in ('chatter'::regnamespace, 'analytics'::regnamespace)
      and 'search_path=""' = any(p.proconfig)
    order by p.oid
  loop
    execute pg_catalog.format('alter function %s set search_path = pg_catalog, pg_temp', v_function);
  end loop;
end
$$;
