"""The hops of a journey: ten differences of neighbouring stamps, adding up to the end-to-end latency."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.analysis.latency import measured, measured_codes, printable, weighted_quantiles
from experiments.ledger import WINDOW_KEY, integers
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
    counted = selected[selected["window"].notna()].astype({"window": "int64"})
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
    codes, windows = measured_codes(reactions)
    chosen = codes >= 0
    for name in STAMPS[:_OF_REACTION]:
        chosen &= ~integers(reactions[name])[1]
    got = due.dropna(subset=list(STAMPS[_OF_REACTION:]))
    heard = got.groupby(WINDOW_KEY, sort=False).agg(
        n_clients=("client_id", "size"),
        trigger_ns=("trigger_ns", "first"),
        emitted_ns=("emitted_ns", "first"),
    )
    windows["n_reactions"] = np.bincount(codes[chosen], minlength=len(windows))
    # In the order of the codes; a window without a receipt has no clients.
    # Int64: a window without a receipt would turn the stamps of the others into floats, which are 100 ns off.
    windows = windows.merge(heard.astype("Int64").reset_index(), on=WINDOW_KEY, how="left")
    clients = windows["n_clients"].fillna(0).to_numpy(dtype=np.int64)
    if len(windows):
        chosen &= clients[codes] > 0
    of_row = codes[chosen]
    weights = clients[of_row]
    rows = []
    for i in range(_OF_REACTION - 1):
        rows.append(_row(_chosen(reactions, i + 1, chosen) - _chosen(reactions, i, chosen), weights))
    triggers = windows["trigger_ns"].fillna(0).to_numpy(dtype=np.int64)
    rows.append(_row(triggers[of_row] - _chosen(reactions, _OF_REACTION - 1, chosen), weights))
    windows = windows[(clients > 0) & (windows["n_reactions"] > 0)].astype(
        {"trigger_ns": "int64", "emitted_ns": "int64"}
    )
    got = got.merge(windows[[*WINDOW_KEY, "n_reactions"]], on=WINDOW_KEY, how="inner")
    for i in range(_OF_REACTION, len(HOPS)):
        if i < _OF_WINDOW:
            frame, of_frame = windows, windows["n_clients"].astype("int64") * windows["n_reactions"]
        else:
            frame, of_frame = got, got["n_reactions"]
        values = frame[STAMPS[i + 1]].to_numpy(dtype=np.int64) - frame[STAMPS[i]].to_numpy(dtype=np.int64)
        rows.append(_row(values, of_frame.to_numpy(dtype=np.int64)))
    return pd.DataFrame([{"hop": name, **row} for name, row in zip(HOPS, rows, strict=True)])


def _chosen(reactions: pd.DataFrame, stamp: int, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    return integers(reactions[STAMPS[stamp]])[0][chosen]


def _row(values: NDArray[np.int64], weights: NDArray[np.int64]) -> dict[str, float | int]:
    nothing = not len(values)
    printed = {name: q for name, q in QUANTILES.items() if printable(q, len(values))}
    found = dict(zip(printed, weighted_quantiles(values, weights, list(printed.values())), strict=True))
    quantiles = {f"{name}_ms": found.get(name, float("nan")) / NS_PER_MS for name in QUANTILES}
    return {
        "mean_ms": float("nan") if nothing else float(np.average(values, weights=weights)) / NS_PER_MS,
        **quantiles,
        "least_ms": float("nan") if nothing else float(values.min()) / NS_PER_MS,
        "most_ms": float("nan") if nothing else float(values.max()) / NS_PER_MS,
        "negative": int(np.count_nonzero(values < 0)),
        "values": len(values),
    }
