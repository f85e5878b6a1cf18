"""The three functions that SQL lacks: a hash, a draw from a hash, and a quantile of Student's t."""

from __future__ import annotations

from hashlib import blake2b

import duckdb
from scipy import stats


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the connection `blake2b_64`, `drawn` and `student_t`."""
    connection.create_function("blake2b_64", blake2b_64, ["VARCHAR"], "BIGINT")
    connection.create_function("drawn", drawn, ["VARCHAR", "BIGINT", "VARCHAR"], "UBIGINT")
    connection.create_function("student_t", student_t, ["DOUBLE", "DOUBLE"], "DOUBLE")


def blake2b_64(text: str) -> int:
    """Return BLAKE2b of the text in UTF-8, as a signed 64-bit number."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def drawn(epoch: str, window: int, emoji_type: str) -> int:
    """Return the uniform 64-bit number that decides, under policy `stochastic`, about a type's rest in a window."""
    name = f"{epoch}\0{window}\0{emoji_type}"
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def student_t(q: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution."""
    return float(stats.t.ppf(q, degrees))
