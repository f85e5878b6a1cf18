"""A run's frames, read from parquet into as little memory as they need.

Of a run of ten million reactions the plan, what was sent and the topic are nearly all the memory. Their text repeats a
few values, and becomes categorical; their timestamps become numbers; small integers need two bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.arrays import IntegerArray

from experiments.ledger import COLUMNS, microseconds

OF_FORMS = ("request", "sent_as")
"""What a plan has beside the columns that it must have, if its load came in arrays and other spellings."""
LARGE = frozenset(("plan", "sent", "topic"))
_SMALL_NUMBERS = frozenset(("partition", "status"))


def read(path: Path, name: str) -> pd.DataFrame:
    """Return the frame `name` from the file at `path`.

    Of a large frame only COLUMNS are read, and OF_FORMS, which a plan may have. Raises what pyarrow does for a file
    that is missing or damaged.
    """
    if name not in LARGE:
        return pd.read_parquet(path)
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
    if not set(COLUMNS[name]) <= set(names):
        # It will be refused by the names that it has.
        return pd.read_parquet(path)
    columns = [*COLUMNS[name], *(column for column in OF_FORMS if column in names)]
    texts = [column for column in columns if column in ("user_id", "emoji_type", "phase", "sent_as")]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        frame = pd.DataFrame({column: _column(file, column) for column in columns}, copy=False)
    # What reading needed beside the columns would stay with pyarrow.
    pa.default_memory_pool().release_unused()
    return frame


def _column(file: pq.ParquetFile, name: str) -> Any:
    """Return a column of a file as pandas holds it."""
    kind = file.schema_arrow.field(name).type
    if name == "timestamp" and pa.types.is_string(kind):
        return _moments(file, name)
    values = file.read(columns=[name]).column(0)
    if not pa.types.is_integer(kind):
        return values.to_pandas()
    if name in _SMALL_NUMBERS:
        values = _narrow(values)
    if not values.null_count:
        return values.to_numpy()
    null = values.is_null().to_numpy()
    return IntegerArray(values.fill_null(0).to_numpy(), null)


def _moments(file: pq.ParquetFile, name: str) -> pd.Series:
    """Return timestamps as datetime64[us], a row group at a time: their text is large."""
    whole = np.empty(file.metadata.num_rows, dtype=np.int64)
    start = 0
    for number in range(file.num_row_groups):
        part = microseconds(file.read_row_group(number, columns=[name]).column(0))
        whole[start : start + len(part)] = part
        start += len(part)
    return pd.Series(whole.view("datetime64[us]"), copy=False)


def _narrow(values: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return values.cast(pa.int16())
    except pa.ArrowInvalid:
        return values
