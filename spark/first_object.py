"""What Spark's JSON reader takes a record for, in Python. No I/O.

It reads the first value and ignores what follows, reads a name again, and replaces bytes that are no text. A strict
reader refuses such a record, and Spark counts it. Only other programs write them. Not stated here are the reader's
bounds: Spark takes no number of more than 1,000 digits, and no name of more than 50,000 characters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, Any] = MappingProxyType({})
WHITE_SPACE = " \t\r\n"


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).raw_decode


def first_object(value: bytes | None) -> Mapping[str, Any]:
    """Return the fields of the JSON object with which `value` begins; none if it begins with something else."""
    try:
        found, _ = _decode((value or b"").decode(errors="replace").lstrip(WHITE_SPACE))
    except (ValueError, RecursionError):
        return NOTHING
    return found if isinstance(found, dict) else NOTHING
