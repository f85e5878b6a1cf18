"""A second reading of a run: every figure of its summary computed again from its rows, in SQL (duckdb)."""
