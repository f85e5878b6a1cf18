"""What the twin really did, row by row, and the figures that an analysis of it must find.

Nothing here uses the analysis: the figures are counted from the rows, pair by pair.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from experiments import files
from experiments.twin.settings import Twin
from experiments.units import NS_PER_MS, NS_PER_S

REACTIONS = (
    *("user_id", "us", "emoji_type", "fate", "arrived_ns", "accepted_ns", "flushed_ns", "appended_ns"),
    *("partition", "offset", "window"),
)
WINDOWS = ("window", "due_ns", "named_trigger_ns", "emitted_ns", "reactions", "phantoms")
DELIVERIES = (
    "client_id",
    "window",
    "main_sent_ns",
    "cluster_sent_ns",
    "subscriber_sent_ns",
    "due_ns",
    "sent_ns",
    "fate",
)


@dataclass
class Reaction:
    """One reaction that arrived; a stamp that it did not reach is None. `us` is its timestamp, epoch microseconds."""

    user_id: str
    us: int
    emoji_type: str
    fate: str
    arrived_ns: int
    accepted_ns: int | None = None
    flushed_ns: int | None = None
    appended_ns: int | None = None
    partition: int | None = None
    offset: int | None = None
    window: int | None = None


@dataclass
class Truth:
    """The rows of a twin. `write` leaves them, and `read` brings them back."""

    reactions: list[Reaction] = field(default_factory=list)
    windows: list[tuple[int, ...]] = field(default_factory=list)
    deliveries: list[tuple[object, ...]] = field(default_factory=list)

    def write(self, folder: Path, twin: Twin) -> None:
        """Write `reactions`, `windows` and `deliveries` as parquet, and the twin."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [[getattr(reaction, name) for name in REACTIONS] for reaction in self.reactions]
        whole = dict.fromkeys(("accepted_ns", "flushed_ns", "appended_ns", "partition", "offset", "window"), "Int64")
        files.to_parquet(pd.DataFrame(rows, columns=list(REACTIONS)).astype(whole), folder / "reactions.parquet")
        files.to_parquet(pd.DataFrame(self.windows, columns=list(WINDOWS)), folder / "windows.parquet")
        files.to_parquet(pd.DataFrame(self.deliveries, columns=list(DELIVERIES)), folder / "deliveries.parquet")
        files.write_text(folder / "twin.json", json.dumps(msgspec.to_builtins(twin, str_keys=True)) + "\n")


@dataclass(frozen=True)
class Figures:
    """What an analysis of the run must find.

    `hops_ms`: the median of each hop whose both stamps are the twin's, or planted: not the generator's send delay.
    `window_of`: the window that counted each planned reaction, by seq; absent if none did. `counts`: the reactions of
    each (window, emoji), phantoms and copies included. `summary`: figures of an analysis' summary that must be exactly
    these. `twin_late_ms`: how late 99 in 100 deliveries were sent, against their plan.
    """

    excess_p50_s: float
    excess_p99_s: float
    worst_window_s: float
    hops_ms: dict[str, float]
    window_of: dict[int, int]
    counts: Counter[tuple[int, str]]
    summary: dict[str, int]
    twin_late_ms: float


def figures(folder: Path, plan: pd.DataFrame, clients: int, twin: Twin) -> Figures:
    """Return the figures of the run whose `plan` was sent to the twin that left its rows in `folder`.

    Every one of `clients` clients was connected from before the load until after the last window.
    """
    reactions, deliveries, windows = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("reactions", "deliveries", "windows")
    )
    own = reactions[~reactions["fate"].isin(["refuse", "copy", "phantom"])]
    known = dict(
        zip(
            zip(own["user_id"].tolist(), own["us"].tolist(), strict=True),
            own["window"].astype("object").tolist(),
            strict=True,
        )
    )
    first = deliveries[deliveries["fate"] != "lose"].drop_duplicates(["client_id", "window"])
    sent: dict[int, list[int]] = defaultdict(list)
    for number, moment in zip(first["window"].tolist(), first["sent_ns"].tolist(), strict=True):
        sent[number].append(moment)
    flushes = np.unique(reactions["flushed_ns"].dropna().to_numpy(dtype=np.int64)).tolist()
    pairs: list[tuple[int, float]] = []
    window_of: dict[int, int] = {}
    due_of: list[int] = []
    rows = zip(*(plan[name].tolist() for name in ("seq", "user_id", "t_intended_ns", "phase")), strict=True)
    for seq, user_id, intended_ns, phase in rows:
        due_ns = earliest_trigger(intended_ns, twin, flushes)
        due_of.append(due_ns)
        window = known.get((user_id, intended_ns // 1000), pd.NA)
        counted = not pd.isna(window)
        if counted:
            window_of[seq] = window
        if phase != "measured":
            continue
        arrived = [(moment - due_ns) / NS_PER_S for moment in sent[window]] if counted else []
        pairs += [(due_ns, value) for value in (*arrived, *[math.inf] * (clients - len(arrived)))]
    edges = {min(due_of, default=0), max(due_of, default=0)}
    values: dict[int, list[float]] = {}
    for due_ns, value in pairs:
        values.setdefault(due_ns, []).append(value)
    every = [value for _, value in pairs]
    return Figures(
        excess_p50_s=ranked(every, 0.5),
        excess_p99_s=ranked(every, 0.99),
        worst_window_s=max((ranked(of, 0.5) for due, of in values.items() if due not in edges), default=math.nan),
        hops_ms=_hops(reactions, windows, first, plan),
        window_of=window_of,
        counts=_counts(reactions),
        summary=_summary(reactions, deliveries, windows),
        twin_late_ms=float((deliveries["sent_ns"] - deliveries["due_ns"]).quantile(0.99)) / NS_PER_MS,
    )


def earliest_trigger(t_ns: int, twin: Twin, flushes: Sequence[int]) -> int:
    """Return the earliest trigger that could count a reaction sent at `t_ns`, by walking along the two grids."""
    interval_ns, lead_ns = twin.flush_ms * NS_PER_MS, twin.flush_lead_ms * NS_PER_MS
    if twin.flush_phase == "aligned":
        flush_ns = t_ns // interval_ns * interval_ns - lead_ns
        while flush_ns < t_ns:
            flush_ns += interval_ns
    else:
        flush_ns = min([t_ns + interval_ns, *(flush for flush in flushes if flush >= t_ns)])
    trigger_ns = round(twin.trigger_s * NS_PER_S)
    due_ns = flush_ns // trigger_ns * trigger_ns
    while due_ns < flush_ns:
        due_ns += trigger_ns
    return due_ns


def ranked(values: Sequence[float], q: float) -> float:
    """Return the value of rank ceil(q n), NaN without values."""
    return sorted(values)[max(math.ceil(q * len(values) - 1e-9) - 1, 0)] if values else math.nan


def _hops(
    reactions: pd.DataFrame, windows: pd.DataFrame, deliveries: pd.DataFrame, plan: pd.DataFrame
) -> dict[str, float]:
    """Return the median of each hop over the pairs of measured reactions, ms."""
    due = plan[plan["phase"] == "measured"].assign(us=plan["t_intended_ns"] // 1000)
    own = reactions[reactions["window"].notna() & ~reactions["fate"].isin(["copy", "phantom"])]
    own = own.merge(due[["user_id", "us"]], on=["user_id", "us"]).astype({"window": "int64"})
    own = own.merge(windows, on="window")
    seen = own[["window", "emitted_ns"]].merge(deliveries, on="window")
    spans: dict[str, Any] = {
        "accept": own["accepted_ns"] - own["arrived_ns"],
        "buffer_wait": own["flushed_ns"] - own["accepted_ns"],
        "append": own["appended_ns"] - own["flushed_ns"],
        "trigger_wait": own["named_trigger_ns"] - own["appended_ns"],
        "micro_batch": own["emitted_ns"] - own["named_trigger_ns"],
        "publish": seen["main_sent_ns"] - seen["emitted_ns"],
        "cluster": seen["cluster_sent_ns"] - seen["main_sent_ns"],
        "subscriber": seen["subscriber_sent_ns"] - seen["cluster_sent_ns"],
        "network": seen["sent_ns"] - seen["subscriber_sent_ns"],
    }
    return {name: ranked((span / NS_PER_MS).tolist(), 0.5) for name, span in spans.items()}


def _summary(reactions: pd.DataFrame, deliveries: pd.DataFrame, windows: pd.DataFrame) -> dict[str, int]:
    fates, counted = reactions["fate"], reactions["window"].notna()
    # Of a delivery that was sent twice, the second is the duplicate; what is never sent is missing.
    sent = deliveries["fate"].value_counts()
    return {
        "accepted": int((~fates.isin(["refuse", "copy", "phantom"])).sum()),
        "counted": int(counted.sum()),
        "lost": int((~counted & ~fates.isin(["refuse", "copy", "phantom"])).sum()),
        "duplicated": int((counted & (fates == "copy")).sum()),
        "altered": int((reactions["offset"].notna() & (fates == "alter")).sum()),
        "foreign": int((counted & (fates == "phantom")).sum()),
        "unexplained": 0,
        "deliveries_missing": int(sent.get("lose", 0)),
        "deliveries_duplicate": int(sent.get("duplicate", 0)),
        "deliveries_altered": int(sent.get("alter", 0)),
        "windows": len(windows),
    }


def _counts(reactions: pd.DataFrame) -> Counter[tuple[int, str]]:
    counted = reactions[reactions["window"].notna()]
    return Counter(zip(counted["window"].astype("int64").tolist(), counted["emoji_type"].tolist(), strict=True))
