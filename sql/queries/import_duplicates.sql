-- Rows whose id an earlier line has, the first 20 of them and how many there are.
select r.line, r.first_line, r.keyed, count(*) over () as found
from (
  select i.line, i.keyed, min(i.line) over (partition by i.id) as first_line
  from pg_temp.import_ids as i
  where i.id in (select d.id from pg_temp.import_ids as d group by d.id having count(*) > 1)
) as r
where r.line > r.first_line
order by r.line
limit 20
