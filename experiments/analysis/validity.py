"""Whether a run may be believed: the generator, the receivers, the machine and the frames.

The clocks are judged in `causality`.

Each check returns its figures, which the report shows, and its reasons, which make the run INVALID. A reason names what
was seen, the limit, and the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.analysis.latency import is_measured, rank_quantile
from experiments.ledger import TIMER_EVERY_S, Ints, integers, unique_windows
from experiments.units import NS_PER_MS, NS_PER_S

SEND_DELAY_P99_MS = 50.0
SEND_STALL_MS = 500.0
SENT_SHARE = 0.999
# A receiver's loop that wakes up late stamps its windows late by as much.
RECEIVERS_LATE_MS = 20.0
# Of all the machine's cores. notebooks/validity_limits.ipynb derives both from their measured effect on the excess: up
# to here it is less than the spread of runs. On two quiet cores, what is not ours takes up to 0.05 of a core in all.
FOREIGN_SHARE = 0.044
STEAL_SHARE = 0.018
# At most the whole median excess takes longer by as much: 29 ms of 247 ms, the spread of runs. Without a chain beside
# it the ratio scatters by 1 %; while the other thread of a core is busy, the work takes up to 1.8 times as long.
WORK_RATIO = 1.12
# A frame that ends early, or has a hole, says nothing of the rest of the load.
TIMER_GAP_S = 1.0
USAGE_GAP_S = 10.0
# A closed loop's users are one process. Above this share of a core its figures measure the process, not the chain.
CROWD_CPU_SHARE = 0.9


class Finding(NamedTuple):
    """Figures by summary key, and the reasons against the run."""

    figures: dict[str, float]
    reasons: list[str]


def generator(reactions: pd.DataFrame) -> Finding:
    """Return whether the load was sent as planned: in full, and on time while measured.

    Of the ledger's reactions it reads `seq, phase, t_intended_ns, t_sent_ns`, the last null if one was not sent.
    """
    (sent_ns, not_sent), planned = integers(reactions["t_sent_ns"]), len(reactions)
    done = ~not_sent
    share = float(done.mean()) if planned else 0.0
    reasons = []
    if share < SENT_SHARE:
        reasons.append(
            f"Only {share:.2%} of the plan was sent ({int(done.sum()):,} of {planned:,}; at least "
            f"{SENT_SHARE:.1%} is needed): lower rate_per_s or give the load generator more CPU."
        )
    timed = done & is_measured(reactions)
    intended_ns = reactions["t_intended_ns"].to_numpy(dtype=np.int64)
    delay_ms = (sent_ns[timed] - intended_ns[timed]) / NS_PER_MS
    p99_ms = rank_quantile(delay_ms, 0.99)
    most_ms = float(delay_ms.max()) if len(delay_ms) else math.nan
    if not p99_ms <= SEND_DELAY_P99_MS:
        seen = "no measured reaction was sent" if math.isnan(p99_ms) else f"it was {p99_ms:.1f} ms"
        reasons.append(
            f"The generator fell behind its plan: p99 of (sent - intended) may be "
            f"{SEND_DELAY_P99_MS:.0f} ms, {seen}. Lower rate_per_s or give it more CPU."
        )
    if most_ms > SEND_STALL_MS:
        worst = reactions.iloc[np.flatnonzero(timed)[int(delay_ms.argmax())]]
        into_s = (worst["t_intended_ns"] - intended_ns.min()) / NS_PER_S
        reasons.append(
            f"The generator stalled: seq {worst['seq']}, due {into_s:.1f} s into the load, went out "
            f"{most_ms:.0f} ms late (at most {SEND_STALL_MS:.0f} ms). "
            "Find out what else used the machine."
        )
    return Finding({"sent_share": share, "send_late_p99_ms": p99_ms, "send_late_most_ms": most_ms}, reasons)


def crowd(cpu_share: float) -> Finding:
    """Return whether a closed loop's users had CPU left; `cpu_share` is their CPU time, of one core.

    Its plan is what was sent, so no delay can show that the users were slowed down. They are one process: if it has no
    core left, its limit would be taken for the chain's. NaN (not sampled) is no reason.
    """
    if not cpu_share >= CROWD_CPU_SHARE:
        return Finding({}, [])
    return Finding(
        {},
        [
            f"The users were busy: their one process took {cpu_share:.2f} of a core (less than "
            f"{CROWD_CPU_SHARE} is needed). Lower users, or raise think_s."
        ],
    )


def receivers(timer: pd.DataFrame, span_ns: tuple[int, int], *, shared: bool = False) -> Finding:
    """Return whether the receivers woke up in time during the load, which lasted from `span_ns` [0] to [1].

    On a `shared` machine (Parameters.machine) their lateness is not judged.
    """
    during = timer[timer["t_ns"].between(*span_ns)]
    p999_ms = rank_quantile(_at_any_moment(during["late_ns"].to_numpy(dtype=np.int64)) / NS_PER_MS, 0.999)
    figures = {"receivers_late_p99.9_ms": p999_ms}
    if math.isnan(p999_ms):
        return Finding(figures, ["The receivers were not timed: no row of their timer is from the load. Run again."])
    gap_s = _longest_gap_s(during["t_ns"], span_ns, during["late_ns"])
    if gap_s > TIMER_GAP_S:
        missing = (
            f"The receivers were not timed for {gap_s:.1f} s of the load: rows of their timer are missing (at most "
            f"{TIMER_GAP_S:g} s may have none). Run again."
        )
        return Finding(figures, [missing])
    if shared or p999_ms <= RECEIVERS_LATE_MS:
        return Finding(figures, [])
    return Finding(
        figures,
        [
            f"The receivers were late: a timer beside them overslept by {p999_ms:.1f} ms at p99.9 (at most "
            f"{RECEIVERS_LATE_MS:.0f} ms). Lower clients, or find out what else used the machine."
        ],
    )


def _at_any_moment(late_ns: Ints) -> Ints:
    """Return how late each wake-up was, and each that did not happen because the one before it was late.

    A timer that oversleeps by 1.6 s has one row in a run of thousands, and would pass at p99.9; an event that came in
    that time waited for as long as was left of it.
    """
    every_ns = round(TIMER_EVERY_S * NS_PER_S)
    times = late_ns // every_ns + 1
    before = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    return np.asarray(np.repeat(late_ns, times) - before * every_ns, dtype=np.int64)


def machine(
    shares: Mapping[str, float], about: Mapping[str, Any], span_ns: tuple[int, int], *, shared: bool = False
) -> Finding:
    """Return whether the machine was ours: `shares` are usage.shares, and `about` is the manifest.

    Of the manifest it reads `cores`, `steal_s` (over the run), `work_s` (what a fixed piece of work took before and
    after the run) and `other_run`; what it does not have is not judged. On a `shared` machine (Parameters.machine) only
    another measurement is.
    """
    figures: dict[str, float] = {}
    reasons = []
    cores = float(about.get("cores") or 1)
    foreign = shares.get("others", math.nan)
    if foreign > FOREIGN_SHARE * cores:
        reasons.append(
            f"Foreign work used the machine: processes that are not of this run took {foreign:.2f} of {cores:g} cores "
            f"(at most {FOREIGN_SHARE * cores:.2g}). End them, or wait for them, and run again; for a check beside "
            "other work, set machine=shared."
        )
    if about.get("steal_s") is not None:
        stolen = figures["steal_cores"] = float(about["steal_s"]) * NS_PER_S / max(span_ns[1] - span_ns[0], 1)
        if stolen > STEAL_SHARE * cores:
            reasons.append(
                f"The host took CPU away: {stolen:.2f} of {cores:g} cores was stolen (at most "
                f"{STEAL_SHARE * cores:.2g}). Use a machine of your own, or run again when the host is quiet."
            )
    if about.get("work_s"):
        before, after = about["work_s"]
        figures["work_ratio"] = after / before
        if not 1 / WORK_RATIO <= figures["work_ratio"] <= WORK_RATIO:
            reasons.append(
                f"The machine's speed changed: a fixed piece of work took {before * 1000:.1f} ms before the chain "
                f"began and {after * 1000:.1f} ms after it ended (a ratio of at most {WORK_RATIO}). Let it cool down, "
                "fix its clock rate, or use a machine of your own."
            )
    if shared:
        reasons = []
    if about.get("other_run"):
        reasons.append("Another run was active on this machine at the same time: run one at a time.")
    return Finding(figures, reasons)


def frames(
    clients: pd.DataFrame,
    deliveries: pd.DataFrame,
    usage: pd.DataFrame,
    windows: pd.DataFrame,
    progress: pd.DataFrame,
    asked_clients: int | None,
    span_ns: tuple[int, int],
) -> Finding:
    """Return whether the frames hold what they must: the clients asked for, samples of usage, and a window for each
    micro-batch that Spark reported and the reverse.
    """
    reasons = []
    heard = clients["client_id"].isin(deliveries["client_id"].unique())
    if asked_clients is not None and len(clients) != asked_clients:
        reasons.append(
            f"Clients are missing: {len(clients)} of the {asked_clients} asked for are in the frame. Run again."
        )
    if len(windows) and not heard.all():
        names = ", ".join(clients.loc[~heard, "client_id"].head(3))
        reasons.append(f"Clients received nothing: {int((~heard).sum())} of {len(clients)} ({names}). Run again.")
    sampled = usage.loc[usage["t_ns"].between(*span_ns), "t_ns"].drop_duplicates()
    if len(sampled) < 2:
        reasons.append(
            "CPU time was not sampled: fewer than two samples are from the load, so foreign work would not be noticed. "
            "Run again."
        )
    elif (gap_s := _longest_gap_s(sampled, span_ns)) > USAGE_GAP_S:
        reasons.append(
            f"CPU time was not sampled for {gap_s:.1f} s of the load (at most {USAGE_GAP_S:g} s), so foreign work "
            "would not be noticed. Run again."
        )
    reasons += _batches(windows, progress)
    return Finding({}, reasons)


def _longest_gap_s(moments_ns: pd.Series, span_ns: tuple[int, int], late_ns: pd.Series | None = None) -> float:
    """Return the longest time within the span without one of the moments; each excuses as much as it was late."""
    ordered = moments_ns.sort_values()
    gaps_ns = np.diff(np.concatenate([span_ns[:1], ordered.to_numpy(dtype=np.int64), span_ns[1:]]))
    if late_ns is not None:
        gaps_ns[:-1] -= late_ns.loc[ordered.index].to_numpy(dtype=np.int64)
    return float(gaps_ns.max()) / NS_PER_S


def _batches(windows: pd.DataFrame, progress: pd.DataFrame) -> list[str]:
    busy = progress[progress["num_input_rows"] > 0]
    shown = unique_windows(windows)["window"]
    reported = busy["batch_id"].unique()
    # Spark reports a micro-batch after it has committed: that of the last window may come after the end of the run.
    unreported = sorted(set(shown[shown < shown.max()]) - set(reported))
    # On a chain that was up, the batch before the first window may hold others' records, and is not the run's.
    unseen = sorted(set(reported[reported > shown.min()]) - set(shown)) if len(shown) else []
    reasons = []
    if unreported:
        reasons.append(
            f"Spark's progress is incomplete: no report for the windows {_some(unreported)}. See Spark's log, "
            "and run again."
        )
    if unseen:
        reasons.append(
            f"Windows are missing: Spark reported micro-batches with records that no window shows: {_some(unseen)}. "
            "See the logs of Spark and Kafka."
        )
    return reasons


def _some(numbers: Sequence[int]) -> str:
    named = ", ".join(str(number) for number in numbers[:5])
    return named if len(numbers) <= 5 else f"{named} and {len(numbers) - 5} more"
