-- A concurrent refresh fails where all identifiers are quoted: its own SQL does not bear it.
alter function analytics.refresh(boolean) set quote_all_identifiers = off;
