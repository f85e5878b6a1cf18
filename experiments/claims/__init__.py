"""Published numbers: each one is a query over kept rows, and is computed again by `make claims`."""
