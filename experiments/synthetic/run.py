"""A synthetic run with known truth: to try the instrument and look at its report without a chain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.analysis.deliveries import expected_hashes
from experiments.ledger import COLUMNS, WINDOW_KEY
from experiments.load.invalid import none
from experiments.load.schedule import poisson_plan, timestamps, user_names
from experiments.units import NS_PER_MS, NS_PER_S
from spark.policies import represent

START_NS = 1_795_426_200 * NS_PER_S  # 2026-11-23T09:30:00Z
EPOCH = "5f0c2b9e-synthetic"
GROUP_SIZE = 10
FIRST_OFFSET = 120  # not zero: earlier traffic filled the topic


@dataclass(frozen=True)
class Run:
    """The frames of a run as its directory holds them, its parameters and manifest, and the truth behind
    them.

    `truth`: `seq, window, end_to_end_ns, floor_ns` per planned reaction, the latency being that to the first client.
    """

    frames: dict[str, pd.DataFrame]
    parameters: dict[str, Any]
    manifest: dict[str, Any]
    truth: pd.DataFrame


def make_run(
    *,
    users: int = 20,
    clients: int = 6,
    rate_per_s: float = 40.0,
    warm_up_triggers: int = 2,
    measured_triggers: int = 6,
    trigger_s: float = 6.0,
    flush_ms: int = 500,
    flush_lead_ms: int = 50,
    partitions: int = 2,
    policy: str = "ceil",
    seed: int = 1,
    plan: pd.DataFrame | None = None,
) -> Run:
    """Return a run of an aligned chain without faults: each reaction counted once, each window at each client.

    `plan` is sent instead of the one that the other arguments give.
    """
    rng = np.random.default_rng([seed, 1])
    if plan is None:
        plan = poisson_plan(
            user_names(users),
            rate_per_s,
            START_NS,
            trigger_s=trigger_s,
            warm_up_triggers=warm_up_triggers,
            measured_triggers=measured_triggers,
            seed=seed,
        )
    intended = plan["t_intended_ns"].to_numpy(dtype=np.int64)
    n = len(plan)
    t_sent = intended + _jitter(rng, n, 0.4)
    accepted = t_sent + _jitter(rng, n, 0.6)
    interval, lead = flush_ms * NS_PER_MS, flush_lead_ms * NS_PER_MS
    flushed = -(-(accepted + lead) // interval) * interval - lead
    flushes, which = np.unique(flushed, return_inverse=True)
    appended = (flushed + (3 * NS_PER_MS + _jitter(rng, len(flushes), 3.0))[which]) // NS_PER_MS * NS_PER_MS
    trigger_ns = round(trigger_s * NS_PER_S)
    trigger = -(-appended // trigger_ns) * trigger_ns
    triggers, window = np.unique(trigger, return_inverse=True)
    window = window.astype(np.int64)
    answered = accepted + _jitter(rng, n, 0.3)
    sent = pd.DataFrame({"seq": plan["seq"], "t_sent_ns": t_sent, "t_answered_ns": answered, "status": 202})
    topic = _topic(plan, accepted, flushed, appended, partitions)
    batch_ns = (rng.lognormal(np.log(260), 0.12, len(triggers)) * NS_PER_MS).astype(np.int64)
    batch_ns[:1] = 3900 * NS_PER_MS  # a cold JVM
    emitted = triggers + batch_ns
    windows = _windows(plan, topic, window, triggers, emitted, partitions, policy)
    people, deliveries = _deliveries(rng, windows, clients, intended.min() - 20 * NS_PER_S)
    progress = _progress(rng, windows, batch_ns)
    usage = _usage(int(intended.min()), int(windows["emitted_ns"].max()))
    first = deliveries.drop_duplicates("window").set_index("window")["received_ns"]
    latency_ns = first.reindex(window).to_numpy(dtype=np.int64) - intended
    due = -(-(-(-(intended + lead) // interval) * interval - lead) // trigger_ns) * trigger_ns
    truth = plan[["seq"]].assign(window=window, end_to_end_ns=latency_ns, floor_ns=due - intended)
    topic = topic.drop(columns="window")
    timer = _timer(rng, int(intended.min()), int(windows["emitted_ns"].max()))
    whole = (plan, sent, topic, windows, people, deliveries, progress, usage, timer, none())
    frames = dict(zip(COLUMNS, whole, strict=True))
    parameters = {
        "users": users,
        "clients": clients,
        "rate_per_s": rate_per_s,
        "trigger_s": trigger_s,
        "flush_ms": flush_ms,
        "flush_phase": "aligned",
        "flush_lead_ms": flush_lead_ms,
        "group_size": GROUP_SIZE,
        "policy": policy,
        "warm_up_triggers": warm_up_triggers,
        "measured_triggers": measured_triggers,
        "seed": seed,
    }
    lasted_s = (int(windows["emitted_ns"].max()) - START_NS) // NS_PER_S + 2
    clock = [[START_NS + i * NS_PER_S, 77 * NS_PER_S + i * NS_PER_S] for i in range(max(lasted_s, 60))]
    manifest = {
        "run": "synthetic",
        "started": "2026-11-23T09:30:00Z",
        "commit": "synthetic",
        "dirty": False,
        "clock_samples": clock,
        "other_run": False,
        "versions": {"python": "3.11"},
        "regenerate": "python -m experiments run -p seed 1",
    }
    return Run(frames, parameters, manifest, truth)


def _jitter(rng: np.random.Generator, n: int, mean_ms: float) -> NDArray[np.int64]:
    return (rng.gamma(4.0, mean_ms / 4.0, n) * NS_PER_MS).astype(np.int64)


def _topic(
    plan: pd.DataFrame,
    accepted: NDArray[np.int64],
    flushed: NDArray[np.int64],
    appended: NDArray[np.int64],
    partitions: int,
) -> pd.DataFrame:
    """Return the records in order, after one probe (null emoji_type) per partition."""
    numbers = pd.factorize(plan["user_id"])[0] % partitions
    records = pd.DataFrame(
        {
            "partition": numbers,
            "user_id": plan["user_id"],
            "emoji_type": plan["emoji_type"],
            "timestamp": timestamps(plan["t_intended_ns"].to_numpy(dtype=np.int64)),
            "accepted_ns": accepted,
            "flushed_ns": flushed,
            "appended_ns": appended,
        }
    )
    probe = records.head(partitions).assign(partition=range(partitions), appended_ns=int(appended.min()))
    probe = probe.assign(user_id=None, emoji_type=None, timestamp=None, accepted_ns=None, flushed_ns=None)
    stamps = {"accepted_ns": "Int64", "flushed_ns": "Int64", "appended_ns": "int64"}
    whole = pd.concat([probe.astype(stamps), records.astype(stamps)], ignore_index=True)
    # Probes have no accepted_ns and were written first: they sort first in their partition.
    whole = whole.sort_values(["partition", "appended_ns", "accepted_ns"], na_position="first", ignore_index=True)
    whole.insert(1, "offset", FIRST_OFFSET + whole.groupby("partition").cumcount())
    return whole


def _windows(
    plan: pd.DataFrame,
    topic: pd.DataFrame,
    window: NDArray[np.int64],
    triggers: NDArray[np.int64],
    emitted: NDArray[np.int64],
    partitions: int,
    policy: str,
) -> pd.DataFrame:
    topic["window"] = np.searchsorted(triggers, topic["appended_ns"].to_numpy(dtype=np.int64), "left")
    ranges = topic.groupby(["window", "partition"])["offset"].agg(["min", "max"])
    edges = dict(zip(ranges.index, ranges.to_numpy(dtype=np.int64).tolist(), strict=True))
    counts = pd.DataFrame({"window": window, "emoji_type": plan["emoji_type"]}).value_counts().sort_index()
    malformed = topic[topic["emoji_type"].isna()].groupby("window").size()
    rows = []
    carried: Mapping[str, int] = {}
    for number in range(len(triggers)):
        of_type = counts[counts.index.get_level_values("window") == number].droplevel("window")
        of_type = of_type.sort_values(ascending=False, kind="stable")
        counted = {str(kind): int(count) for kind, count in of_type.items()}
        shown, carried = represent(policy, counted, GROUP_SIZE, epoch=EPOCH, window=number, carried=carried)
        cells = [
            {"emoji_type": kind, "count": count, "representatives": shown[kind]} for kind, count in counted.items()
        ]
        offsets = {f"emoji-events-{p}": edges[(number, p)] for p in range(partitions) if (number, p) in edges}
        rows.append(
            {
                "epoch": EPOCH,
                "window": number,
                "trigger_ns": int(triggers[number]),
                "emitted_ns": int(emitted[number]),
                "total": int(of_type.sum()),
                "malformed": int(malformed.get(number, 0)),
                "offsets": json.dumps(offsets),
                "reactions": json.dumps(cells, ensure_ascii=False),
                "carried": json.dumps(carried, ensure_ascii=False),
            }
        )
    return pd.DataFrame(rows)


def _deliveries(
    rng: np.random.Generator, windows: pd.DataFrame, clients: int, joined_ns: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    numbers = np.arange(clients)
    people = pd.DataFrame(
        {
            "client_id": [f"client-{i:03d}" for i in numbers],
            "cluster": (numbers % 2 + 1).astype(str),
            "subscriber": (numbers // 2 % 2 + 1).astype(str),
            "joined_ns": joined_ns,
            # Like the audience of a run, it leaves as soon as it has the last window.
            "left_ns": int(windows["emitted_ns"].max()) + NS_PER_S // 10,
        }
    )
    shown = expected_hashes(windows, 0).rename(columns={"expected_hash": "shown_hash"})
    rows = people[["client_id", "cluster"]].merge(windows.merge(shown, on=WINDOW_KEY), how="cross")
    # A stage stamps a window once for all clients behind it; only the last two hops differ by client.
    per_window = pd.DataFrame({"window": windows["window"], "main_ns": 2_000_000 + _jitter(rng, len(windows), 2)})
    per_cluster = rows[["window", "cluster"]].drop_duplicates()
    per_cluster = per_cluster.assign(cluster_ns=2_000_000 + _jitter(rng, len(per_cluster), 2))
    rows = rows.merge(per_window, on="window").merge(per_cluster, on=["window", "cluster"])
    main = rows["emitted_ns"] + rows["main_ns"]
    cluster = main + rows["cluster_ns"]
    subscriber = cluster + 2_000_000 + _jitter(rng, len(rows), 2)
    return people, pd.DataFrame(
        {
            "client_id": rows["client_id"],
            "epoch": rows["epoch"],
            "window": rows["window"],
            "event_id": rows["epoch"] + ":" + rows["window"].astype(str),
            "received_ns": subscriber + 500_000 + _jitter(rng, len(rows), 1),
            "main_sent_ns": main,
            "cluster_sent_ns": cluster,
            "subscriber_sent_ns": subscriber,
            "total": rows["total"],
            "shown_hash": rows["shown_hash"],
        }
    )


def _progress(rng: np.random.Generator, windows: pd.DataFrame, batch_ns: NDArray[np.int64]) -> pd.DataFrame:
    execution = batch_ns // NS_PER_MS + rng.integers(20, 60, len(windows))
    busy = pd.DataFrame(
        {
            "batch_id": windows["window"],
            "trigger_start_ns": windows["trigger_ns"],
            "trigger_execution_ms": execution,
            "num_input_rows": windows["total"] + windows["malformed"],
            "latest_offset_ms": 5,
            "add_batch_ms": batch_ns // NS_PER_MS - 30,
            "wal_commit_ms": 12,
            "commit_ms": 14,
        }
    )
    idle = busy.tail(1).assign(batch_id=len(windows), num_input_rows=0, trigger_execution_ms=4)
    idle["trigger_start_ns"] += 6 * NS_PER_S
    return pd.concat([busy, idle], ignore_index=True)


def _usage(start_ns: int, end_ns: int) -> pd.DataFrame:
    """Return a sample every two seconds: Spark at 0.3 cores, ingest at 0.1, and other programs at 0.02."""
    cores = {"spark": 0.3, "ingest": 0.1, "machine": 0.42}
    rows = [
        (moment_ns, stage, 5.0 + share * (moment_ns - start_ns) / NS_PER_S, 100 << 20)
        for moment_ns in range(start_ns, end_ns + 2 * NS_PER_S, 2 * NS_PER_S)
        for stage, share in cores.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS["usage"]))


def _timer(rng: np.random.Generator, start_ns: int, end_ns: int) -> pd.DataFrame:
    """Return the wake-ups of receivers that are a fraction of a millisecond late."""
    moments = np.arange(start_ns, end_ns, 20 * NS_PER_MS, dtype=np.int64)
    return pd.DataFrame({"t_ns": moments, "late_ns": _jitter(rng, len(moments), 0.2)})
