"""Invalid requests in the load, each with the status that ingest has to answer. JMeter's plan sends the same ones."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.ledger import COLUMNS
from experiments.load import http1
from pipeline.errors import EmoStreamError

TABLE = Path(__file__).parents[1] / "jmeter" / "bad-input.csv"
"""The table of cases: those of the stage `ingest` are sent."""

# What JMeter makes of an expression of its own.
_MADE_BY_JMETER = {"${__groovy(([0] * 1001) as String)}": str([0] * 1001)}
# Of the random numbers of a seed.
_STREAM = 0xBAD


class Case(NamedTuple):
    """An invalid request, and the status of its answer."""

    method: str
    path: str
    content_type: str
    body: str
    status: int


@lru_cache(maxsize=1)
def cases() -> dict[str, Case]:
    """Return the invalid requests by name. Raises EmoStreamError naming a case that only JMeter can make."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "ingest"]
    for row in rows:
        row["body"] = _MADE_BY_JMETER.get(row["body"], row["body"])
        if "${" in row["body"]:
            raise EmoStreamError(
                f"{TABLE}: the body of {row['case']!r} is {row['body']!r}, which only JMeter can make: add it to "
                "experiments/load/invalid.py, or write the body itself"
            )
    return {
        row["case"]: Case(row["method"], row["path"], row["content_type"], row["body"], int(row["status"]))
        for row in rows
    }


def none() -> pd.DataFrame:
    """Return the frame `invalid` of a load without invalid requests."""
    return pd.DataFrame({name: pd.Series(dtype=object if name == "case" else "int64") for name in COLUMNS["invalid"]})


def planned(plan: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Return the frame `invalid`: the requests to send beside a `plan`, in order of time, without answers yet.

    They are a share of `share` of all requests, rounded; each case is as likely as the others, and each moment from the
    plan's first to its last one. Sent and answered are 0.
    """
    valid = int(plan["request"].nunique()) if "request" in plan else len(plan)
    count = round(valid * share / (1 - share))
    if not count:
        return none()
    rng = np.random.default_rng([seed, _STREAM])
    due = plan["t_intended_ns"]
    names = list(cases())
    chosen = [names[number] for number in rng.integers(0, len(names), count)]
    frame = none().reindex(range(count), fill_value=0)
    return frame.assign(
        case=chosen,
        expected=[cases()[name].status for name in chosen],
        t_intended_ns=np.sort(rng.integers(int(due.min()), int(due.max()), count, endpoint=True)),
    )


def request(name: str, base_path: str) -> bytes:
    """Return the bytes of the request of a case, for a server at `base_path`."""
    case = cases()[name]
    return http1.request(case.method, f"{base_path}{case.path}", case.body.encode(), case.content_type)
