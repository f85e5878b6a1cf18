"""The hops of a journey: ten differences of neighbouring stamps, adding up to the end-to-end latency."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.analysis.latency import measured, printable, weighted_quantile
from experiments.ledger import WINDOW_KEY
from experiments.units import NS_PER_MS

STAMPS = (
    "t_intended_ns",
    "t_sent_ns",
    "accepted_ns",
    "flushed_ns",
    "appended_ns",
    "trigger_ns",
    "emitted_ns",
    "main_sent_ns",
    "cluster_sent_ns",
    "subscriber_sent_ns",
    "received_ns",
)
"""The stamps of a journey in the order the design gives them; a hop leads from each to the next."""

HOPS = (
    "send_delay",
    "accept",
    "buffer_wait",
    "append",
    "trigger_wait",
    "micro_batch",
    "publish",
    "cluster",
    "subscriber",
    "network",
)
_OF_REACTION, _OF_WINDOW = (
    5,
    6,
)  # the first five hops differ by reaction, the sixth by window, the rest by delivery

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def journeys(reactions: pd.DataFrame, due: pd.DataFrame) -> pd.DataFrame:
    """Return a row per (measured accepted reaction, receipt): `seq, client_id`, each hop and `end_to_end`,
    int64 ns.

    Every pair is written out: meant for small runs or a slice of one. Pairs that lack a stamp are left out.
    """
    selected = measured(reactions)
    counted = selected[selected["window"].notna()].astype({"window": "int64"}).drop(columns=["partition", "offset"])
    pairs = counted.merge(due, on=WINDOW_KEY, how="inner").dropna(subset=list(STAMPS))
    stamps = [pairs[name].to_numpy(dtype=np.int64) for name in STAMPS]
    hops = {name: stamps[i + 1] - stamps[i] for i, name in enumerate(HOPS)}
    return pd.DataFrame(
        {"seq": pairs["seq"], "client_id": pairs["client_id"], **hops, "end_to_end": stamps[-1] - stamps[0]}
    )


def hop_table(reactions: pd.DataFrame, due: pd.DataFrame) -> pd.DataFrame:
    """Return a row per hop: `hop, mean_ms, p50_ms, p90_ms, p99_ms, least_ms, most_ms, negative, values`.

    The figures are those of all pairs of `journeys`, without writing the pairs out: a hop that only differs
    by reaction is weighted by its window's receipts, one that only differs by delivery by its window's
    reactions. So the means add up to the mean latency of the delivered pairs. `values` is the number of
    distinct values behind a row and `negative` how many of them are below zero; a percentile that `values`
    cannot carry (latency.printable) is null.
    """
    selected = measured(reactions)
    counted = selected[selected["window"].notna()].astype({"window": "int64"}).dropna(subset=list(STAMPS[:5]))
    got = due.dropna(subset=list(STAMPS[5:]))
    sizes = counted.groupby(WINDOW_KEY, sort=False).size().rename("n_reactions").reset_index()
    heard = got.groupby(WINDOW_KEY, sort=False).agg(
        n_clients=("client_id", "size"),
        trigger_ns=("trigger_ns", "first"),
        emitted_ns=("emitted_ns", "first"),
    )
    windows = sizes.merge(heard.reset_index(), on=WINDOW_KEY, how="inner")
    counted = counted.merge(windows, on=WINDOW_KEY, how="inner")
    got = got.merge(windows[[*WINDOW_KEY, "n_reactions"]], on=WINDOW_KEY, how="inner")
    rows = []
    for i, name in enumerate(HOPS):
        if i < _OF_REACTION:
            frame, weights = counted, counted["n_clients"]
        elif i < _OF_WINDOW:
            frame, weights = windows, windows["n_clients"] * windows["n_reactions"]
        else:
            frame, weights = got, got["n_reactions"]
        values = frame[STAMPS[i + 1]].to_numpy(dtype=np.int64) - frame[STAMPS[i]].to_numpy(dtype=np.int64)
        rows.append({"hop": name, **_row(values, weights.to_numpy(dtype=np.int64))})
    return pd.DataFrame(rows)


def _row(values: NDArray[np.int64], weights: NDArray[np.int64]) -> dict[str, float | int]:
    nothing = not len(values)
    quantiles = {
        f"{name}_ms": weighted_quantile(values, weights, q) / NS_PER_MS if printable(q, len(values)) else float("nan")
        for name, q in QUANTILES.items()
    }
    return {
        "mean_ms": float("nan") if nothing else float(np.average(values, weights=weights)) / NS_PER_MS,
        **quantiles,
        "least_ms": float("nan") if nothing else float(values.min()) / NS_PER_MS,
        "most_ms": float("nan") if nothing else float(values.max()) / NS_PER_MS,
        "negative": int(np.count_nonzero(values < 0)),
        "values": len(values),
    }
