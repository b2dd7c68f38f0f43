-- Whether the schema was ever migrated: to_regclass is null where there is no such table.
select to_regclass('chatter.alembic_version') is not null
