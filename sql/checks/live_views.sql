-- What live views take from their materialized views is what they would compute themselves.
-- Mend: select analytics.refresh(true);
with figures as (
  select 'latency_by_model' as view, to_jsonb(v) as told, 1 as sign
  from analytics.latency_by_model_live as v
  union all
  select 'latency_by_model', to_jsonb(v), -1
  from analytics.latency_by_model_computed as v
  union all
  select 'active_users', to_jsonb(v), 1
  from analytics.active_users_live as v
  union all
  select 'active_users', to_jsonb(v), -1
  from analytics.active_users_computed as v
)

select
  f.view, f.told,
  case when sum(f.sign) > 0 then 'told, and not so' else 'so, and not told' end as finding
from figures as f
group by f.view, f.told
having sum(f.sign) <> 0
order by f.view, f.told
