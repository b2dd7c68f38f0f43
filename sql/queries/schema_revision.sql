-- The revision of the migrated schema.
select version_num from chatter.alembic_version
