"""Latency from planned tap to screen, of every pair of a measured reaction and a client that should see it.

A quantile q of n values is the value of rank ceil(q n) ("inverted CDF"), so that it is a value that occurred, and +inf,
for a reaction that never arrived, needs no arithmetic. Quantiles come from the values or from merged histograms; they
are never averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.ledger import WINDOW_KEY, Bools, Codes, Ints, accepted, pieces, require, unique_windows, window_codes
from experiments.units import NS_PER_MS, NS_PER_S

_CELLS_AT_ONCE = 1 << 21  # 16 MB of int64: the sums stay small however many clients there are
# Of the first, coarse count of a quantile: the values that are then sorted are those of one in so many.
_BINS = 1 << 12


def rank_quantile(values: NDArray[Any], q: float) -> float:
    """Return the value of rank ceil(q n), NaN for no values; `values` need no order and may hold +inf."""
    if len(values) == 0:
        return math.nan
    return float(np.partition(values, rank(q, len(values)))[rank(q, len(values))])


def weighted_quantile(values: Ints, weights: Ints, q: float) -> float:
    """Return the quantile of `values` each taken `weights` times, NaN for no weight at all."""
    order = np.argsort(values, kind="stable")
    heights = np.cumsum(weights[order])
    if len(heights) == 0 or heights[-1] == 0:
        return math.nan
    return float(values[order][np.searchsorted(heights, rank(q, int(heights[-1])), "right")])


def weighted_quantiles(values: Ints, weights: Ints, qs: Sequence[float]) -> list[float]:
    """Return weighted_quantile of each of `qs`, without sorting all values: those near each quantile are enough."""
    if len(values) <= _BINS:
        return [weighted_quantile(values, weights, q) for q in qs]
    low = int(values.min())
    width = (int(values.max()) - low) // _BINS + 1
    bins = np.empty(len(values), dtype=np.int16)
    heights = np.zeros(_BINS, dtype=np.float64)
    for part in pieces(len(values)):
        bins[part] = (values[part] - low) // width
        # A sum of floats is exact up to 2^53 pairs.
        heights += np.bincount(bins[part], weights[part], minlength=_BINS)
    heights = np.cumsum(heights.astype(np.int64))
    found = []
    for q in qs:
        position = rank(q, int(heights[-1]))
        of_bin = int(np.searchsorted(heights, position, "right"))
        near = bins == of_bin
        inside, weight = values[near], weights[near]
        order = np.argsort(inside, kind="stable")
        within = np.cumsum(weight[order]) + (heights[of_bin - 1] if of_bin else 0)
        found.append(float(inside[order][np.searchsorted(within, position, "right")]) if heights[-1] else math.nan)
    return found


def rank(q: float, n: int) -> int:
    """Return the position, from 0, of the quantile `q` among `n` ordered values."""
    # A hair under the product: 0.07 * 100 is 7.000000000000001, and must not become rank 8.
    return min(max(math.ceil(q * n - 1e-9) - 1, 0), n - 1)


def printable(q: float, samples: int) -> bool:
    """Return whether a percentile has enough samples: at least ten beyond it, n (1 - q) >= 10.

    So p99 needs 1,000 samples and p99.9 needs 10,000.
    """
    return samples * (1 - q) >= 10 - 1e-9


@dataclass(frozen=True)
class Histogram:
    """Latencies in linear bins of 1 ms (bin i: first_ms + i <= latency < first_ms + i + 1), and missing pairs.

    `undelivered` pairs count as +inf. `negative` pairs (received before the intended send) are in the bins
    too. `reactions` is the number of distinct reactions behind the pairs: the clients of one reaction see it
    together, so this number, and not that of the pairs, limits the percentiles that may be read.
    """

    first_ms: int
    counts: Ints
    undelivered: int
    negative: int
    reactions: int

    @property
    def samples(self) -> int:
        """The number of (reaction, client) pairs, undelivered ones included."""
        return int(self.counts.sum()) + self.undelivered

    def quantile_s(self, q: float) -> float:
        """Return the quantile in seconds, rounded up to the ms; inf: undelivered, NaN: no pairs."""
        if self.samples == 0:
            return math.nan
        bin_number = int(np.searchsorted(np.cumsum(self.counts), rank(q, self.samples), "right"))
        return math.inf if bin_number >= len(self.counts) else (self.first_ms + bin_number + 1) / 1000

    def mean_s(self) -> float:
        """Return the mean of the delivered pairs, in seconds, to half a bin; NaN without any."""
        delivered = int(self.counts.sum())
        if not delivered:
            return math.nan
        middles_ms = self.first_ms + np.arange(len(self.counts)) + 0.5
        return float(np.dot(middles_ms, self.counts)) / delivered / 1000

    def merged(self, other: Histogram) -> Histogram:
        """Return the histogram of both runs' pairs together."""
        first = min(self.first_ms, other.first_ms)
        length = max(self.first_ms + len(self.counts), other.first_ms + len(other.counts)) - first
        counts = np.zeros(length, dtype=np.int64)
        for part in (self, other):
            counts[part.first_ms - first : part.first_ms - first + len(part.counts)] += part.counts
        return Histogram(
            first,
            counts,
            self.undelivered + other.undelivered,
            self.negative + other.negative,
            self.reactions + other.reactions,
        )


EMPTY = Histogram(0, np.zeros(0, dtype=np.int64), 0, 0, 0)


def last_counted_ns(reactions: pd.DataFrame, windows: pd.DataFrame) -> int:
    """Return when the last window that counts a reaction of the ledger was emitted; 0 if none does."""
    _, counting = window_codes(reactions)
    emitted = unique_windows(windows).merge(counting, on=WINDOW_KEY)["emitted_ns"]
    return int(emitted.max()) if len(emitted) else 0


def receipts(
    windows: pd.DataFrame, clients: pd.DataFrame, deliveries: pd.DataFrame, *, grace_s: float, last_ns: int = 0
) -> pd.DataFrame:
    """Return one row per (window, client that should have it): the delivery's first receipt, null if missing.

    A client should have a window if it was connected from before the window was emitted until at least `grace_s`
    after: joined_ns <= emitted_ns <= left_ns - grace_s. A null left_ns means it never left. A run's audience waits for
    the window emitted at `last_ns` (`last_counted_ns`) and leaves as soon as it has it: a client that left after that
    should have every window up to it. Columns: `epoch, window, client_id, cluster, subscriber, trigger_ns, emitted_ns`,
    the window's `total` and the delivery's stamps (Int64).
    """
    require("clients", clients)
    require("deliveries", deliveries)
    stay = clients.assign(until_ns=_until_ns(clients, grace_s, last_ns))
    known = unique_windows(windows)[[*WINDOW_KEY, "trigger_ns", "emitted_ns", "total"]]
    pairs = known.merge(stay[["client_id", "cluster", "subscriber", "joined_ns", "until_ns"]], how="cross")
    pairs = pairs[(pairs["joined_ns"] <= pairs["emitted_ns"]) & (pairs["emitted_ns"] <= pairs["until_ns"])]
    stamps = ["main_sent_ns", "cluster_sent_ns", "subscriber_sent_ns", "received_ns"]
    first = deliveries.drop_duplicates(["client_id", *WINDOW_KEY], keep="first")
    first = first[["client_id", *WINDOW_KEY, *stamps]].astype(dict.fromkeys(stamps, "Int64"))
    due = pairs.drop(columns=["joined_ns", "until_ns"])
    return due.merge(first, on=["client_id", *WINDOW_KEY], how="left").astype(dict.fromkeys(stamps, "Int64"))


def _until_ns(clients: pd.DataFrame, grace_s: float, last_ns: int) -> Ints:
    left = clients["left_ns"].astype("Int64").fillna(np.iinfo(np.int64).max).to_numpy(dtype=np.int64)
    until = left - round(grace_s * NS_PER_S)
    return np.where(left >= last_ns, np.maximum(until, last_ns), until)


@dataclass(frozen=True)
class EndToEnd:
    """The run's histogram, and a row per measured window in order of its trigger.

    `windows`: `epoch, window, trigger_ns, reactions, clients, p50_s, p99_s` (of its pairs) and
    `after_trigger_s`: the median over its clients of receipt minus trigger, which does not depend on when
    the reactions were due.
    """

    histogram: Histogram
    windows: pd.DataFrame


def measured(reactions: pd.DataFrame) -> pd.DataFrame:
    """Return the ledger's measured reactions, those that were not accepted as in no window.

    A reaction that was refused, not answered or not sent never reaches a screen, as far as its sender knows.
    """
    due = reactions[is_measured(reactions)]
    return due.assign(window=due["window"].where(accepted(due)))


def is_measured(reactions: pd.DataFrame) -> Bools:
    """Return which rows of the ledger are of the measured phase."""
    return (reactions["phase"] == "measured").to_numpy(dtype=np.bool_)


def end_to_end(
    reactions: pd.DataFrame, due: pd.DataFrame, clients: pd.DataFrame, *, grace_s: float, last_ns: int = 0
) -> EndToEnd:
    """Return the latency of every (measured reaction, client that should have it), from the ledger and the `receipts`.

    Latency = received_ns - t_intended_ns. All reactions of a window reach a client in one event, so the pairs
    of a window are an outer difference, of which only the counts are made. A reaction that was not accepted, or is in
    no window, is undelivered to every client that was connected at its intended send and `grace_s` after. `grace_s` and
    `last_ns` are those of `receipts`.
    """
    codes, windows = measured_codes(reactions)
    intended = reactions["t_intended_ns"].to_numpy(dtype=np.int64)
    total = EMPTY
    rows = []
    by_window = dict(iter(due.groupby(WINDOW_KEY, sort=False)))
    for key, sends in zip(
        windows.itertuples(index=False, name=None), _by_code(intended, codes, len(windows)), strict=True
    ):
        seen = by_window.get(key)
        if seen is None or not len(sends):
            continue
        arrived = seen["received_ns"].dropna().to_numpy(dtype=np.int64)
        part = _outer(sends, arrived, len(sends) * (len(seen) - len(arrived)))
        total = total.merged(part)
        trigger_ns = int(seen["trigger_ns"].iloc[0])
        rows.append(
            (
                *(*key, trigger_ns, len(sends), len(seen), part.quantile_s(0.5), part.quantile_s(0.99)),
                rank_quantile(arrived - trigger_ns, 0.5) / NS_PER_S,
            )
        )
    each = owed_each(intended[codes == LOST], clients, grace_s=grace_s, last_ns=last_ns)
    # A reaction that no client was owed is behind no pair.
    total = total.merged(Histogram(0, EMPTY.counts, int(each.sum()), 0, int(np.count_nonzero(each))))
    names = [*WINDOW_KEY, "trigger_ns", "reactions", "clients", "p50_s", "p99_s", "after_trigger_s"]
    return EndToEnd(total, pd.DataFrame(rows, columns=names).sort_values("trigger_ns", ignore_index=True))


LOST, OTHER_PHASE = -1, -2


def measured_codes(reactions: pd.DataFrame) -> tuple[Codes, pd.DataFrame]:
    """Return of each reaction the row in `epoch, window` of its window, and those windows.

    The windows of `measured` are meant: a measured reaction without one is LOST, one that is not measured OTHER_PHASE.
    """
    codes, windows = window_codes(reactions)
    codes[~accepted(reactions)] = LOST
    codes[~is_measured(reactions)] = OTHER_PHASE
    return codes, windows


def _by_code(values: Ints, codes: Codes, count: int) -> list[Ints]:
    """Return the values of each code from 0 to `count`, in their order."""
    # Numbers of two bytes are sorted in one pass.
    small = codes.astype(np.int16) if count <= np.iinfo(np.int16).max else codes
    order = np.argsort(small, kind="stable")
    ends = np.searchsorted(small, np.arange(count + 1), "left", sorter=order)
    ordered = values[order]
    return [ordered[start:end] for start, end in pairwise(ends.tolist())]


def _outer(sends: Ints, arrived: Ints, undelivered: int) -> Histogram:
    """Return the histogram of all differences of an arrival and a send.

    A difference in whole ms is that of the two numbers of ms, or one less if the send's rest is the larger one. So the
    sends are counted once, by ms and by which of the arrivals' rests lie below their own.
    """
    if not len(arrived) or not len(sends):
        return Histogram(0, EMPTY.counts, undelivered, 0, len(sends))
    sent_ms, sent_rest = np.divmod(sends, NS_PER_MS)
    moments_ms, which = np.unique(sent_ms, return_inverse=True)
    first_ms = int((arrived.min() - sends.max()) // NS_PER_MS)
    last_ms = int((arrived.max() - sends.min()) // NS_PER_MS)
    # With a bin more at each end, to which only zeros are added.
    counts = np.zeros(last_ms - first_ms + 3, dtype=np.int64)
    step = max(1, _CELLS_AT_ONCE // len(moments_ms))
    by_rest = arrived[np.argsort(arrived % NS_PER_MS, kind="stable")]
    for start in range(0, len(by_rest), step):
        arrived_ms, arrived_rest = np.divmod(by_rest[start : start + step], NS_PER_MS)
        cells = which * (len(arrived_ms) + 1) + np.searchsorted(arrived_rest, sent_rest, "left")
        table = np.bincount(cells, minlength=len(moments_ms) * (len(arrived_ms) + 1)).reshape(len(moments_ms), -1)
        # Of each ms and each arrival: the sends whose rest is not larger than the arrival's, and the others.
        whole = np.cumsum(table[:, :-1], axis=1)
        less = table.sum(axis=1)[:, np.newaxis] - whole
        for number, moment_ms in enumerate(arrived_ms.tolist()):
            # The moments are distinct, and so are the bins.
            bins = moment_ms - moments_ms - first_ms + 1
            counts[bins] += whole[:, number]
            counts[bins - 1] += less[:, number]
    counts = counts[1:-1]
    return Histogram(first_ms, counts, undelivered, int(counts[: max(-first_ms, 0)].sum()), len(sends))


def owed_each(lost_ns: Ints, clients: pd.DataFrame, *, grace_s: float, last_ns: int = 0) -> Ints:
    """Return of each reaction in no window, by intended send, the number of clients connected then and after.

    `grace_s` and `last_ns` are those of `receipts`.
    """
    until = _until_ns(clients, grace_s, last_ns)
    joined = clients["joined_ns"].to_numpy(dtype=np.int64)
    stayed = joined <= until
    arrived = np.searchsorted(np.sort(joined[stayed]), lost_ns, "right")
    left = np.searchsorted(np.sort(until[stayed]), lost_ns, "left")
    return np.asarray(arrived - left, dtype=np.int64)
