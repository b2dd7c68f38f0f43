"""Everything through PgBouncer, which hands connections on after each transaction."""
