"""The recorder against real graphs, real HTTP providers and real Postgres."""
