"""The delivery audit: compare the windows that each client got with those it should have got.

Jepsen's Kafka workload has these names for the same faults: missing = "poll-skip", out of order = "nonmonotonic-poll",
duplicate = "duplicate".
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.ledger import WINDOW_KEY, cells, require, shown_hash, unique_windows
from experiments.units import NS_PER_S

FAULTS = ("missing", "duplicate", "out_of_order", "late", "altered", "unknown")
"""`late`: received more than late_s after the window was emitted. `altered`: total, event id, or the types with their
counts and representatives differ from the window's. `unknown`: a window that was never emitted."""


def audit(
    windows: pd.DataFrame,
    due: pd.DataFrame,
    deliveries: pd.DataFrame,
    clients: pd.DataFrame,
    *,
    late_s: float = 2.0,
    top_n: int = 0,
) -> pd.DataFrame:
    """Return a row per client: `client_id, cluster, subscriber, due, received` and a count of each of FAULTS.

    `due` is latency.receipts of the same frames; `deliveries` must be in the order of receipt, client by
    client. `top_n` is how many types the chain shows (0: all).

    Windows received beyond those due (emitted before the client joined, or as it left) are not a fault.
    """
    require("deliveries", deliveries)
    known = unique_windows(windows).sort_values(["trigger_ns", "window"], ignore_index=True)
    rank = known[WINDOW_KEY].assign(
        rank=np.arange(len(known)), emitted_ns=known["emitted_ns"], emitted_total=known["total"], known=True
    )
    rank = rank.merge(expected_hashes(known, top_n), on=WINDOW_KEY, how="left")
    rows = deliveries.merge(rank, on=WINDOW_KEY, how="left")  # a left merge keeps the order of receipt
    known_rows = rows["known"].notna()
    again = rows.duplicated(["client_id", *WINDOW_KEY])
    fresh = known_rows & ~again
    highest = rows["rank"].where(fresh).groupby(rows["client_id"]).cummax()
    latest = highest.groupby(rows["client_id"]).ffill().groupby(rows["client_id"]).shift()
    event_id = rows["epoch"].astype(str) + ":" + rows["window"].astype(str)
    faults = pd.DataFrame(
        {
            "client_id": rows["client_id"],
            "received": fresh,
            "duplicate": known_rows & again,
            "out_of_order": fresh & (rows["rank"] < latest),
            "late": fresh & (rows["received_ns"] - rows["emitted_ns"] > round(late_s * NS_PER_S)),
            "altered": known_rows
            & (
                (rows["total"] != rows["emitted_total"])
                | (rows["event_id"] != event_id)
                | (rows["shown_hash"].astype("Int64") != rows["expected_hash"].astype("Int64")).fillna(True)
            ),
            "unknown": ~known_rows,
        }
    )
    counts = faults.groupby("client_id").sum()
    owed = (
        due.assign(missing=due["received_ns"].isna())
        .groupby("client_id")
        .agg(due=("window", "size"), missing=("missing", "sum"))
    )
    frame = clients[["client_id", "cluster", "subscriber"]].merge(owed, on="client_id", how="left")
    frame = frame.merge(counts, left_on="client_id", right_index=True, how="left")
    names = ["due", "received", *FAULTS]
    return frame.fillna(dict.fromkeys(names, 0)).astype(dict.fromkeys(names, "int64"))[
        ["client_id", "cluster", "subscriber", *names]
    ]


def expected_hashes(windows: pd.DataFrame, top_n: int) -> pd.DataFrame:
    """Return `epoch, window, expected_hash`: the hash of what a cluster shows of each window.

    The policy's arithmetic is checked against the counts (representation.representatives_wrong), and the counts against
    the topic (accuracy.oracle), so that equal hashes mean that people saw the policy applied to the oracle's counts.
    """
    ordered = cells(windows).sort_values(["count", "emoji_type"], ascending=[False, True], kind="stable")
    shown = {
        key: shown_hash(
            list(zip(part["emoji_type"], part["count"], part["representatives"], strict=True))[: top_n or None]
        )
        for key, part in ordered.groupby(WINDOW_KEY, sort=False)
    }
    nothing = shown_hash([])
    keys = list(zip(windows["epoch"], windows["window"], strict=True))
    return windows[WINDOW_KEY].assign(expected_hash=pd.array([shown.get(key, nothing) for key in keys], dtype="Int64"))


def totals(audited: pd.DataFrame) -> dict[str, int]:
    """Return the sums over all clients: `due`, `received` and each of FAULTS."""
    return {name: int(audited[name].sum()) for name in ("due", "received", *FAULTS)}


def at_fault(audited: pd.DataFrame) -> str:
    """Return the subscribers whose clients saw a fault, as `cluster/subscriber`, the most faults first."""
    faults = audited[list(FAULTS)].sum(axis=1)
    by_subscriber = faults.groupby(audited["cluster"] + "/" + audited["subscriber"]).sum()
    return ", ".join(by_subscriber[by_subscriber > 0].sort_values(ascending=False, kind="stable").index)
