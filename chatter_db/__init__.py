"""True numbers for LLM chat products: Postgres keeps the books."""
