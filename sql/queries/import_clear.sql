-- The transaction may be a longer one, with another import to come.
drop view pg_temp.import_bookable;

drop table
  pg_temp.import_chunk, pg_temp.import_deferred, pg_temp.import_ids, pg_temp.import_names,
  pg_temp.import_targets
