"""Latency from planned tap to screen, of every pair of a measured reaction and a client that should see it.

A quantile q of n values is the value of rank ceil(q n) ("inverted CDF"), so that it is a value that occurred, and +inf,
for a reaction that never arrived, needs no arithmetic. Quantiles come from the values or from merged histograms; they
are never averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.ledger import WINDOW_KEY, accepted, require, unique_windows
from experiments.units import NS_PER_MS, NS_PER_S

_PAIRS_AT_ONCE = 1 << 22  # 32 MB of int64: the outer sums stay small however many clients there are

Ints = NDArray[np.int64]


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
    counting = reactions.loc[reactions["window"].notna(), WINDOW_KEY].drop_duplicates()
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
    due = reactions[(reactions["phase"] == "measured").to_numpy(dtype=bool)]
    return due.assign(window=due["window"].where(accepted(due)))


def end_to_end(
    reactions: pd.DataFrame, due: pd.DataFrame, clients: pd.DataFrame, *, grace_s: float, last_ns: int = 0
) -> EndToEnd:
    """Return the latency of every (measured reaction, client that should have it), from the ledger and the `receipts`.

    Latency = received_ns - t_intended_ns. All reactions of a window reach a client in one event, so the pairs
    of a window are an outer difference, counted straight into bins: a million reactions to a hundred clients
    need seconds and tens of megabytes. A reaction that was not accepted, or is in no window, is undelivered to every
    client that was connected at its intended send and `grace_s` after. `grace_s` and `last_ns` are those of `receipts`.
    """
    selected = measured(reactions)
    total = EMPTY
    rows = []
    by_window = dict(iter(due.groupby(WINDOW_KEY, sort=False)))
    for key, group in selected[selected["window"].notna()].groupby(WINDOW_KEY, sort=False):
        seen = by_window.get(key)
        if seen is None:
            continue
        sends = group["t_intended_ns"].to_numpy(dtype=np.int64)
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
    lost = selected.loc[selected["window"].isna(), "t_intended_ns"].to_numpy(dtype=np.int64)
    each = owed_each(lost, clients, grace_s=grace_s, last_ns=last_ns)
    # A reaction that no client was owed is behind no pair.
    total = total.merged(Histogram(0, EMPTY.counts, int(each.sum()), 0, int(np.count_nonzero(each))))
    names = [*WINDOW_KEY, "trigger_ns", "reactions", "clients", "p50_s", "p99_s", "after_trigger_s"]
    return EndToEnd(total, pd.DataFrame(rows, columns=names).sort_values("trigger_ns", ignore_index=True))


def _outer(sends: Ints, arrived: Ints, undelivered: int) -> Histogram:
    if not len(arrived) or not len(sends):
        return Histogram(0, EMPTY.counts, undelivered, 0, len(sends))
    first_ms = int((arrived.min() - sends.max()) // NS_PER_MS)
    last_ms = int((arrived.max() - sends.min()) // NS_PER_MS)
    counts = np.zeros(last_ms - first_ms + 1, dtype=np.int64)
    negative = 0
    step = max(1, _PAIRS_AT_ONCE // len(arrived))
    for start in range(0, len(sends), step):
        pairs_ns = np.subtract.outer(arrived, sends[start : start + step]).ravel()
        negative += int(np.count_nonzero(pairs_ns < 0))
        counts += np.bincount(pairs_ns // NS_PER_MS - first_ms, minlength=len(counts))
    return Histogram(first_ms, counts, undelivered, negative, len(sends))


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


def owed(lost_ns: Ints, clients: pd.DataFrame, *, grace_s: float, last_ns: int = 0) -> int:
    """Return the sum of `owed_each`: the number of pairs of a reaction in no window and a client that was there."""
    return int(owed_each(lost_ns, clients, grace_s=grace_s, last_ns=last_ns).sum())
