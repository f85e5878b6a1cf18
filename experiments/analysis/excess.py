"""The excess of every pair of a measured reaction and a client that should see it, and the worst window.

The excess of a pair is its latency less the floor of its reaction. Both count from the intended send, so that it is the
receipt minus the earliest trigger that could count the reaction (floor.earliest_triggers): all pairs of one receipt and
one trigger have the same excess, and there are few of those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from experiments.analysis.floor import Waits, earliest_triggers
from experiments.analysis.latency import (
    LOST,
    OTHER_PHASE,
    Histogram,
    measured_codes,
    owed_each,
    rank,
    weighted_quantile,
)
from experiments.ledger import WINDOW_KEY, Codes, Ints
from experiments.units import NS_PER_MS, NS_PER_S

# Of a pair that never arrived: no time is as long.
NEVER_NS = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Excess:
    """The excess of all pairs, exactly: `values_ns` (ascending, NEVER_NS last), each taken `weights` times.

    `floors_ns` is the floor of each measured reaction, ascending. `due`: a row per trigger at which measured
    reactions were due, `due_ns, reactions, pairs, undelivered, p50_s` (the median excess of its pairs, inf: never)
    and `whole` (the load ran through the whole interval before the trigger). `whole_windows`: `epoch, window` of
    the windows that count measured reactions and during all of which the load ran.
    """

    values_ns: Ints
    weights: Ints
    reactions: int
    floors_ns: Ints
    due: pd.DataFrame
    whole_windows: pd.DataFrame

    def quantile_s(self, q: float) -> float:
        """Return the quantile of the excess in seconds; inf: undelivered, NaN: no pairs."""
        heights = self._heights
        if not len(heights):
            return math.nan
        return _seconds(float(self.values_ns[np.searchsorted(heights, rank(q, int(heights[-1])), "right")]))

    def floor_s(self, q: float) -> float:
        """Return the quantile of the measured reactions' floors in seconds; NaN without any."""
        count = len(self.floors_ns)
        return float(self.floors_ns[rank(q, count)]) / NS_PER_S if count else math.nan

    @cached_property
    def _heights(self) -> Ints:
        # A spectrum asks for hundreds of quantiles.
        return np.cumsum(self.weights)

    @property
    def negative(self) -> int:
        """The number of pairs that arrived before the earliest possible trigger."""
        return int(self.weights[self.values_ns < 0].sum())

    @property
    def whole_due(self) -> pd.DataFrame:
        """The rows of `due` that are whole."""
        return self.due[self.due["whole"]]

    @property
    def worst_s(self) -> float:
        """The largest median excess of a whole interval between two triggers, in seconds; NaN without any."""
        medians = self.whole_due["p50_s"].dropna()
        return float(medians.max()) if len(medians) else math.nan

    def histogram(self) -> Histogram:
        """Return the excess in bins of 1 ms, which merge over runs."""
        arrived = self.values_ns < NEVER_NS
        undelivered = int(self.weights[~arrived].sum())
        bins = self.values_ns[arrived] // NS_PER_MS
        first = int(bins.min()) if len(bins) else 0
        counts = np.zeros(int(bins.max()) - first + 1 if len(bins) else 0, dtype=np.int64)
        np.add.at(counts, bins - first, self.weights[arrived])
        return Histogram(first, counts, undelivered, self.negative, self.reactions)


def excess(
    reactions: pd.DataFrame,
    due: pd.DataFrame,
    clients: pd.DataFrame,
    waits: Waits,
    flushed_ns: Ints,
    *,
    grace_s: float,
    last_ns: int = 0,
) -> Excess:
    """Return the excess of each pair of a measured reaction and a client that should have it.

    The arguments are those of latency.end_to_end, and the flushes that the topic shows. The pairs are the same: a
    delivery that did not arrive, and a reaction that was not accepted or is in no window, count as infinitely late.
    """
    intended = reactions["t_intended_ns"].to_numpy(dtype=np.int64)
    earliest = earliest_triggers(intended, waits, flushed_ns)
    codes, windows = measured_codes(reactions)
    of_due, dues = pd.factorize(earliest)
    of_due = of_due.astype(np.int32)
    floors = np.subtract(earliest, intended, out=earliest)[codes != OTHER_PHASE]
    floors.sort()
    del earliest
    sizes = _sizes(codes, of_due, windows, dues)
    pairs = sizes.merge(due[[*WINDOW_KEY, "received_ns"]], on=WINDOW_KEY, how="inner")
    value = (pairs["received_ns"].astype("Int64") - pairs["due_ns"]).fillna(NEVER_NS).astype("int64")
    rows = pairs[["due_ns", "weight"]].assign(value=value)
    lost = codes == LOST
    lost_ns, lost_due = intended[lost], of_due[lost]
    each = owed_each(lost_ns, clients, grace_s=grace_s, last_ns=last_ns)
    missed = [(due_ns, int(each[lost_due == number].sum()), NEVER_NS) for number, due_ns in enumerate(dues.tolist())]
    rows = pd.concat([rows, pd.DataFrame(missed, columns=["due_ns", "weight", "value"]).astype("int64")])
    rows = rows[rows["weight"] > 0].sort_values("value", kind="stable")
    return Excess(
        values_ns=rows["value"].to_numpy(dtype=np.int64),
        weights=rows["weight"].to_numpy(dtype=np.int64),
        reactions=int(sizes.merge(due[WINDOW_KEY].drop_duplicates(), on=WINDOW_KEY)["weight"].sum())
        + int(np.count_nonzero(each)),
        floors_ns=floors,
        due=_by_trigger(rows, dues, np.bincount(of_due[codes != OTHER_PHASE], minlength=len(dues))),
        whole_windows=_whole_windows(reactions, codes, windows, of_due, dues),
    )


def _sizes(codes: Codes, of_due: Codes, windows: pd.DataFrame, dues: Ints) -> pd.DataFrame:
    """Return `epoch, window, due_ns, weight`: the measured reactions of a window and a trigger."""
    counted = codes >= 0
    cells = codes[counted].astype(np.int64) * len(dues) + of_due[counted]
    numbers, weights = np.unique(cells, return_counts=True)
    rows = windows.iloc[numbers // len(dues)] if len(dues) else windows.iloc[:0]
    return rows.assign(due_ns=dues[numbers % max(len(dues), 1)], weight=weights).reset_index(drop=True)


def _by_trigger(rows: pd.DataFrame, dues: Ints, counts: Ints) -> pd.DataFrame:
    table = []
    for number in np.argsort(dues):
        due_ns, reactions = int(dues[number]), int(counts[number])
        if not reactions:
            continue
        group = rows[rows["due_ns"] == due_ns]
        values, weights = group["value"].to_numpy(dtype=np.int64), group["weight"].to_numpy(dtype=np.int64)
        undelivered = int(weights[values == NEVER_NS].sum())
        median_s = _seconds(weighted_quantile(values, weights, 0.5))
        whole = bool(dues.min() < due_ns < dues.max())
        table.append((due_ns, reactions, int(weights.sum()), undelivered, median_s, whole))
    kinds = {"due_ns": "int64", "reactions": "int64", "pairs": "int64", "undelivered": "int64"}
    names = [*kinds, "p50_s", "whole"]
    return pd.DataFrame(table, columns=names).astype({**kinds, "p50_s": "float64", "whole": "bool"})


def _whole_windows(
    reactions: pd.DataFrame, codes: Codes, windows: pd.DataFrame, of_due: Codes, dues: Ints
) -> pd.DataFrame:
    """Return the windows of measured reactions that count none of the load's first or last interval.

    The load begins and ends within those, so that a window which counts some of them is a part of one.
    """
    counting = pd.unique(codes[codes >= 0])
    if len(dues):
        edge = np.isin(of_due, np.flatnonzero((dues == dues.min()) | (dues == dues.max())))
        # Of these every window is partial, also that of a reaction which is not measured or was not accepted.
        partial = (
            reactions.loc[edge, WINDOW_KEY].dropna().drop_duplicates().astype({"epoch": object, "window": "int64"})
        )
        partial_codes = windows.reset_index().merge(partial, on=WINDOW_KEY)["index"]
        counting = counting[~np.isin(counting, partial_codes)]
    return windows.iloc[counting].reset_index(drop=True)


def _seconds(value_ns: float) -> float:
    return math.inf if value_ns >= NEVER_NS else value_ns / NS_PER_S
