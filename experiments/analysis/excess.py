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
from experiments.analysis.latency import Histogram, Ints, measured, owed, rank, weighted_quantile
from experiments.ledger import WINDOW_KEY
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
    all_of = reactions.assign(due_ns=earliest)
    selected = measured(all_of)
    counted = selected[selected["window"].notna()].astype({"window": "int64"})
    sizes = counted.groupby([*WINDOW_KEY, "due_ns"], sort=False).size().rename("weight").reset_index()
    pairs = sizes.merge(due[[*WINDOW_KEY, "received_ns"]], on=WINDOW_KEY, how="inner")
    value = (pairs["received_ns"].astype("Int64") - pairs["due_ns"]).fillna(NEVER_NS).astype("int64")
    rows = pairs[["due_ns", "weight"]].assign(value=value)
    lost = selected[selected["window"].isna()]
    missed = [
        (due_ns, owed(group.to_numpy(dtype=np.int64), clients, grace_s=grace_s, last_ns=last_ns), NEVER_NS)
        for due_ns, group in lost.groupby("due_ns")["t_intended_ns"]
    ]
    rows = pd.concat([rows, pd.DataFrame(missed, columns=["due_ns", "weight", "value"]).astype("int64")])
    rows = rows[rows["weight"] > 0].sort_values("value", kind="stable")
    return Excess(
        values_ns=rows["value"].to_numpy(dtype=np.int64),
        weights=rows["weight"].to_numpy(dtype=np.int64),
        reactions=int(sizes.merge(due[WINDOW_KEY].drop_duplicates(), on=WINDOW_KEY)["weight"].sum())
        + sum(int((lost["due_ns"] == due_ns).sum()) for due_ns, pairs_lost, _ in missed if pairs_lost),
        floors_ns=np.sort((selected["due_ns"] - selected["t_intended_ns"]).to_numpy(dtype=np.int64)),
        due=_by_trigger(rows, selected, earliest),
        whole_windows=_whole_windows(all_of, counted, earliest),
    )


def _by_trigger(rows: pd.DataFrame, selected: pd.DataFrame, earliest: Ints) -> pd.DataFrame:
    table = []
    for due_ns, reactions in zip(
        *np.unique(selected["due_ns"].to_numpy(dtype=np.int64), return_counts=True), strict=True
    ):
        group = rows[rows["due_ns"] == due_ns]
        values, weights = group["value"].to_numpy(dtype=np.int64), group["weight"].to_numpy(dtype=np.int64)
        undelivered = int(weights[values == NEVER_NS].sum())
        median_s = _seconds(weighted_quantile(values, weights, 0.5))
        whole = bool(earliest.min() < due_ns < earliest.max())
        table.append((due_ns, reactions, int(weights.sum()), undelivered, median_s, whole))
    kinds = {"due_ns": "int64", "reactions": "int64", "pairs": "int64", "undelivered": "int64"}
    names = [*kinds, "p50_s", "whole"]
    return pd.DataFrame(table, columns=names).astype({**kinds, "p50_s": "float64", "whole": "bool"})


def _whole_windows(all_of: pd.DataFrame, counted: pd.DataFrame, earliest: Ints) -> pd.DataFrame:
    """Return the windows of measured reactions that count none of the load's first or last interval.

    The load begins and ends within those, so that a window which counts some of them is a part of one.
    """
    if not len(earliest):
        return counted[WINDOW_KEY]
    edges = all_of["due_ns"].isin([earliest.min(), earliest.max()]) & all_of["window"].notna()
    partial = all_of.loc[edges, WINDOW_KEY].astype({"window": "int64"}).drop_duplicates()
    windows = counted[WINDOW_KEY].drop_duplicates().merge(partial, on=WINDOW_KEY, how="left", indicator=True)
    return windows.loc[windows["_merge"] == "left_only", WINDOW_KEY].reset_index(drop=True)


def _seconds(value_ns: float) -> float:
    return math.inf if value_ns >= NEVER_NS else value_ns / NS_PER_S
