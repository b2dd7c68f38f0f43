-- Imports book one after the other: two that make the same conversations in
-- another order would deadlock.
select pg_advisory_xact_lock(hashtextextended('chatter import', 0))
