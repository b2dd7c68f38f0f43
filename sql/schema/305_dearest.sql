-- The conversations that cost most, without reading all of them.
--
-- No index can have them: a total in an index would make every update of a conversation write
-- to all of its indexes (110). So the fold keeps candidates: every conversation that is at
-- least as dear as a bound, which is in analytics.state. What became dearer since the last fold
-- is named by the deltas that wait. More candidates than 2,500 raise the bound, so that 1,500
-- are left; fewer than a thousand, which is what the view promises, and they are looked for
-- anew. That takes a reading of all conversations, after some hundred of the dearest were
-- deleted or became cheaper.

create table analytics.dearest_candidates (
  conversation_id uuid not null,
  total_cost numeric not null,
  constraint dearest_candidates_pkey primary key (conversation_id)
);

comment on table analytics.dearest_candidates is
  'Every conversation that is at least as dear as the bound in analytics.state, as of the last fold.';
comment on column analytics.dearest_candidates.conversation_id is 'The conversation; may be gone, if a delta that waits names it.';
comment on column analytics.dearest_candidates.total_cost is 'US dollars, as of the last fold.';

-- Looks for the candidates anew, among all conversations.
create function analytics.rebuild_dearest() returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  -- No fold meanwhile.
  select pg_catalog.pg_advisory_xact_lock(chatter.bell() + 1);

  delete from analytics.dearest_candidates;

  insert into analytics.dearest_candidates (conversation_id, total_cost)
  select c.id, c.total_cost
  from chatter.conversations as c
  where c.total_cost > 0
  order by c.total_cost desc, c.id
  limit 1500;

  -- All of them are there, or the last one is the bound.
  update analytics.state as s
  set dearest_cost = coalesce(b.total_cost, 0), dearest_id = b.conversation_id
  from (values (true)) as one (row)
    left join (
      select d.total_cost, d.conversation_id
      from analytics.dearest_candidates as d
      order by d.total_cost desc, d.conversation_id
      offset 1499
    ) as b on true;
$$;

comment on function analytics.rebuild_dearest() is 'Looks for the dearest conversations among all of them.';

-- Takes up what became of these conversations. Within a fold, whose lock keeps others away.
create function analytics.keep_dearest(p_conversation_ids uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_all boolean;
  v_candidates bigint;
begin
  with found as materialized (
    select
      i.id, c.total_cost,
      c.total_cost > s.dearest_cost or c.total_cost = s.dearest_cost and c.id <= s.dearest_id as dear
    from unnest(p_conversation_ids) as i (id)
      cross join analytics.state as s
      left join chatter.conversations as c on c.id = i.id
  ),

  gone as (
    delete from analytics.dearest_candidates as d
    using found as f
    where d.conversation_id = f.id and f.dear is not true
  )

  insert into analytics.dearest_candidates as d (conversation_id, total_cost)
  select f.id, f.total_cost
  from found as f
  where f.dear
  on conflict (conversation_id) do update set total_cost = excluded.total_cost;

  select s.dearest_cost = 0, (select count(*) from analytics.dearest_candidates)
  into v_all, v_candidates
  from analytics.state as s;

  if v_candidates > 2500 then
    with ranked as materialized (
      select
        d.conversation_id, d.total_cost,
        row_number() over (order by d.total_cost desc, d.conversation_id) as place
      from analytics.dearest_candidates as d
    ),

    gone as (
      delete from analytics.dearest_candidates as d
      using ranked as r
      where d.conversation_id = r.conversation_id and r.place > 1500
    )

    update analytics.state as s
    set dearest_cost = r.total_cost, dearest_id = r.conversation_id
    from ranked as r
    where r.place = 1500;
  elsif v_candidates < 1000 and not v_all then
    perform analytics.rebuild_dearest();
  end if;
end
$$;

comment on function analytics.keep_dearest(uuid[]) is 'Takes up the cost of these conversations, for the dearest ones.';
