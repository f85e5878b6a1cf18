"""Analyse a run: from its frames to all that its report shows. Pure, so that a campaign can call it per run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments import ledger
from experiments.analysis import accuracy, batches, causality, hops, lag, latency, usage, validity, verdict
from experiments.analysis import deliveries as audit
from experiments.analysis.batches import Drift
from experiments.analysis.excess import Excess, excess
from experiments.analysis.floor import Waits, spectrum
from experiments.analysis.representation import Representation, representation, representatives_wrong
from experiments.parameters import limits_of
from experiments.stats.steadiness import Steadiness, steadiness
from experiments.units import NS_PER_S
from pipeline.errors import SettingError

EDITION = 2
"""The edition of the measurement protocol by which a run is analysed; a summary without one is of the first."""
UNSTEADY_REMEDY = (
    "Measure again; if it stays so, warm up longer (warm_up_triggers), lower the load, or find what else changed."
)
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Conditions:
    """The parameters of a run that its analysis needs."""

    waits: Waits
    group_size: int
    policy: str
    grace_s: float
    late_s: float
    limits: dict[str, float]

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Conditions:
        """Read them from a run's parameters: `trigger_s, flush_ms, flush_phase, flush_lead_ms`, and if given
        `group_size` (10), `policy` ("ceil"), `grace_s` (2: how long after a window was emitted a client must
        have stayed to be owed it) and `late_s` (2: a delivery later than that after the window was emitted is
        late).

        Raises SettingError naming a parameter that is missing or not a number, and for `slos` as `limits_of` does.
        """
        needed = ("trigger_s", "flush_ms", "flush_phase", "flush_lead_ms")
        for name in needed:
            if name not in parameters:
                raise SettingError(f"The run's parameters lack {name}: an analysis needs {', '.join(needed)}.")
        numbers: dict[str, float] = {}
        defaults = {"group_size": 10, "grace_s": 2.0, "late_s": 2.0}
        for name in ("trigger_s", "flush_ms", "flush_lead_ms", *defaults):
            raw = parameters.get(name, defaults.get(name))
            try:
                numbers[name] = float(raw)
            except (TypeError, ValueError):
                numbers[name] = math.nan
            if not math.isfinite(numbers[name]):
                raise SettingError(f"The run's parameter {name} is {raw!r}: give a number.")
        waits = Waits(
            numbers["trigger_s"],
            numbers["flush_ms"] / 1000,
            str(parameters["flush_phase"]),
            numbers["flush_lead_ms"] / 1000,
        )
        waits.quantile_s(0.5)  # raises here for an impossible floor
        return cls(
            waits,
            int(numbers["group_size"]),
            str(parameters.get("policy", "ceil")),
            numbers["grace_s"],
            numbers["late_s"],
            limits_of(parameters.get("slos", "")),
        )


@dataclass(frozen=True)
class Analysis:
    """All results of a run: frames by name, and the flat `summary`.

    `reactions` is the ledger without `partition` and `offset`.
    """

    conditions: Conditions
    reactions: pd.DataFrame
    end_to_end: latency.EndToEnd
    excess: Excess
    percentiles: pd.DataFrame
    spectrum: pd.DataFrame
    hops: pd.DataFrame
    batches: pd.DataFrame
    lags: pd.DataFrame
    drift: Drift
    conservation: accuracy.Conservation
    oracle: accuracy.Oracle
    offset_breaks: pd.DataFrame
    representation: Representation
    cells: pd.DataFrame
    audit: pd.DataFrame
    answers_unexpected: pd.DataFrame
    summary: dict[str, Any]
    verdict: verdict.Verdict


def analyse(frames: Mapping[str, pd.DataFrame], parameters: Mapping[str, Any], manifest: Mapping[str, Any]) -> Analysis:
    """Return the analysis of a run.

    `frames` holds each of ledger.COLUMNS. `manifest` may hold `clock_samples` ([[time_ns, monotonic_ns],
    ...]), `warm_up` (run.open_loop.run) and `other_run` (bool); without clock samples the run is INVALID.
    """
    for name in ledger.COLUMNS:
        if name not in frames:
            raise ledger.LedgerError(f"The run has no {name} frame: pass all of {', '.join(ledger.COLUMNS)}.")
        ledger.require(name, frames[name])
    conditions = Conditions.of(parameters)
    # A copy of the mapping: the largest frames are let go as soon as their figures are known.
    frames = dict(frames)
    plan, sent, topic, windows = (frames.pop(name) for name in ("plan", "sent", "topic", "windows"))
    clients, deliveries = frames["clients"], frames["deliveries"]
    planned = ledger.identified(plan, topic)
    records = ledger.placed(topic, windows, planned)
    del topic
    reactions = ledger.joined(plan, sent, records)
    del sent
    balance = accuracy.conservation(plan, reactions, records, windows)
    checked = accuracy.oracle(records)
    arrivals = lag.arrivals(records, conditions.waits.trigger_s)
    flushed_ns = records.topic["flushed_ns"].drop_duplicates().dropna().to_numpy(dtype=np.int64)
    del records
    # The place in the topic has served the balance; of ten million reactions it is 120 MB. `drop` would copy the rest.
    del reactions["partition"], reactions["offset"]
    grace_s, last_ns = conditions.grace_s, latency.last_counted_ns(reactions, windows)
    due = latency.receipts(windows, clients, deliveries, grace_s=grace_s, last_ns=last_ns)
    whole = latency.end_to_end(reactions, due, clients, grace_s=grace_s, last_ns=last_ns)
    over = excess(reactions, due, clients, conditions.waits, flushed_ns, grace_s=grace_s, last_ns=last_ns)
    times = batches.batch_times(frames["progress"], windows, whole.windows)
    batch = batches.summarise(times, conditions.waits.trigger_s)
    trend = batches.drift(whole.windows["trigger_ns"], whole.windows["after_trigger_s"])
    known = ledger.unique_windows(windows)
    counted = known.merge(over.whole_windows, on=ledger.WINDOW_KEY)
    shown = representation(counted, group_size=conditions.group_size, policy=conditions.policy)
    wrong = representatives_wrong(windows, group_size=conditions.group_size, policy=conditions.policy)
    audited = audit.audit(
        windows, due, deliveries, clients, late_s=conditions.late_s, top_n=int(manifest.get("top_n") or 0)
    )
    percentiles = percentile_table(whole.histogram, over)
    breaks = accuracy.offset_breaks(windows)
    answers = accuracy.answers_unexpected(frames["invalid"])
    table = hops.hop_table(reactions, due)
    steady = _steady(whole.windows, times)
    warm_up = manifest.get("warm_up") or {}
    lags = lag.lags(arrivals, conditions.waits.trigger_s, whole.windows)
    summary: dict[str, Any] = {
        "protocol_edition": EDITION,
        **_latency_keys(percentiles),
        "excess_worst_window_s": over.worst_s,
        "excess_windows": len(over.whole_due),
        "excess_negative": over.negative,
        "samples": whole.histogram.samples,
        "reactions_measured": whole.histogram.reactions,
        **_journey(whole.histogram, table),
        "undelivered": whole.histogram.undelivered,
        "negative": whole.histogram.negative,
        **asdict(batch),
        **{f"drift_{name.removeprefix('slope_')}": value for name, value in asdict(trend).items()},
        "steady": _both([one.steady for one in steady]),
        "steady_why": " ".join(one.why for one in steady),
        "warm_up_lasted_triggers": warm_up.get("triggers", math.nan),
        "warm_up_settled": warm_up.get("settled"),
        "steady_shift_s": steady[0].shift_s,
        "steady_batch_shift_s": steady[1].shift_s,
        "loop": str(parameters.get("loop", "open")),
        **_load(reactions, lag.lag_slope(lags), conditions.waits.trigger_s),
        **_answers(reactions),
        **_forms(plan),
        "invalid_requests": len(frames["invalid"]),
        "answers_unexpected": int(answers["requests"].sum()),
        **_usage(frames["usage"], reactions),
        "users": int(plan["user_id"].nunique()),
        "clients": len(clients),
        "windows": len(known),
        "windows_measured": len(whole.windows),
        "windows_whole": len(over.whole_windows),
        **{name: value for name, value in vars(balance).items() if name != "problems"},
        "oracle_cells": checked.cells,
        "oracle_equal": checked.equal,
        "oracle_share": checked.equal / checked.cells if checked.cells else None,
        "offset_breaks": len(breaks),
        "conflicting": int((balance.problems["problem"] == "conflicting").sum()),
        "representation_error": shown.error,
        "representation_bound": shown.bound,
        "representation_over_bound": len(shown.over_bound),
        "representatives_wrong": len(wrong),
        "tv_distance": shown.tv_distance,
        **{f"deliveries_{name}": value for name, value in audit.totals(audited).items()},
        "subscribers_at_fault": audit.at_fault(audited),
    }
    span_ns, shared = load_span_ns(plan), parameters.get("machine") == "shared"
    findings = [
        validity.generator(reactions),
        validity.receivers(frames["receivers_timer"], span_ns, shared=shared),
        validity.machine(usage.shares(frames["usage"], *span_ns), manifest, span_ns, shared=shared),
        validity.frames(
            clients, deliveries, frames["usage"], windows, frames["progress"], parameters.get("clients"), span_ns
        ),
        causality.clock(manifest.get("clock_samples", ()), span_ns),
        causality.broker(reactions, conditions.waits.trigger_s),
        causality.causes(reactions, due),
        causality.triggers(windows, frames["progress"], conditions.waits.trigger_s),
    ]
    if summary["loop"] == "closed":
        findings.append(validity.crowd(summary.get("cpu_share_load", math.nan)))
    for finding in findings:
        summary |= finding.figures
    reasons = [reason for finding in findings for reason in finding.reasons]
    # What else runs on a shared machine changes the chain's times: recorded, and not judged.
    changes = [] if shared else [f"{one.why} {UNSTEADY_REMEDY}" for one in steady if one.steady is False]
    judged = verdict.judge(
        reasons, summary, verdict.objectives(conditions.limits, conditions.waits.trigger_s), unsteady=changes
    )
    summary = {
        **summary,
        "valid": judged.valid,
        "unsteady": judged.unsteady,
        "reasons": list(judged.reasons),
        "passed": judged.passed,
        "slos": {slo.key: slo.passed for slo in judged.slos},
    }
    return Analysis(
        conditions=conditions,
        reactions=reactions,
        end_to_end=whole,
        excess=over,
        percentiles=percentiles,
        spectrum=spectrum(whole.histogram, over.floor_s, over.quantile_s),
        hops=table,
        batches=times,
        lags=lags,
        drift=trend,
        conservation=balance,
        oracle=checked,
        offset_breaks=breaks,
        representation=shown,
        cells=ledger.cells(counted),
        audit=audited,
        answers_unexpected=answers,
        summary=summary,
        verdict=judged,
    )


def _steady(windows: pd.DataFrame, times: pd.DataFrame) -> tuple[Steadiness, Steadiness]:
    """Return whether the measured windows' time from trigger to screens and micro-batch time were steady."""
    measured = times[times["phase"] == "measured"]
    return (
        steadiness("The time from trigger to screens", windows["after_trigger_s"].to_list()),
        steadiness("The micro-batch time", measured["batch_s"].to_list()),
    )


def _both(steady: Sequence[bool | None]) -> bool | None:
    """Return whether all are steady: one that changed decides; one with too few windows leaves it open (None)."""
    return False if False in steady else None if None in steady else True


def load_span_ns(plan: pd.DataFrame) -> tuple[int, int]:
    """Return the moments of the first and the last reaction due, warm-up included; (0, 0) without any."""
    due = plan["t_intended_ns"]
    return (int(due.min()), int(due.max())) if len(due) else (0, 0)


def percentile_table(histogram: latency.Histogram, over: Excess) -> pd.DataFrame:
    """Return `percentile, observed_s, floor_s, excess_s`, for percentiles with enough samples.

    Each column holds quantiles of its own, over all pairs: a reaction of the 99th percentile of the latency need not be
    one of the 99th percentile of the excess.
    """
    rows = [
        (name, histogram.quantile_s(q), over.floor_s(q), over.quantile_s(q))
        for name, q in PERCENTILES.items()
        if latency.printable(q, histogram.reactions)
    ]
    return pd.DataFrame(rows, columns=["percentile", "observed_s", "floor_s", "excess_s"])


def _latency_keys(percentiles: pd.DataFrame) -> dict[str, float]:
    rows = percentiles.set_index("percentile")
    keys = {"observed_s": "e2e_{}_s", "floor_s": "floor_{}_s", "excess_s": "e2e_excess_{}_s"}
    return {
        key.format(name): float(rows[column].get(name, math.nan))
        for column, key in keys.items()
        for name in ("p50", "p90", "p99")
    }


def _journey(histogram: latency.Histogram, table: pd.DataFrame) -> dict[str, float]:
    """Return the mean latency, from the histogram, and the mean of each hop: they must agree to its 1 ms."""
    means = {f"hop_{hop}_mean_ms": float(mean) for hop, mean in zip(table["hop"], table["mean_ms"], strict=True)}
    whole_s, hops_s = histogram.mean_s(), sum(means.values()) / 1000
    return {"e2e_mean_s": whole_s, "hops_mean_s": hops_s, "hop_sum_error_s": hops_s - whole_s, **means}


def _load(reactions: pd.DataFrame, slope: lag.Slope, trigger_s: float) -> dict[str, float]:
    """Return the reactions per second offered and accepted while measured (whole triggers), and the lag's growth."""
    measured = latency.is_measured(reactions)
    due_ns = reactions["t_intended_ns"].to_numpy(dtype=np.int64)[measured]
    spent_s = float(due_ns.max() - due_ns.min()) / NS_PER_S if len(due_ns) else 0.0
    measured_s = max(round(spent_s / trigger_s), 1) * trigger_s
    offered_per_s = len(due_ns) / measured_s
    accepted_per_s = int(ledger.accepted(reactions)[measured].sum()) / measured_s
    return {
        "offered_per_s": offered_per_s,
        "accepted_per_s": accepted_per_s,
        "accepted_share": accepted_per_s / offered_per_s if offered_per_s else math.nan,
        # The closed loop's word for it: the throughput of its users at their number and think time.
        "throughput_per_s": accepted_per_s,
        "lag_slope_per_s": slope.per_s,
        "lag_slope_upper_per_s": slope.high_per_s,
        "lag_slope_upper_share": slope.high_per_s / offered_per_s if offered_per_s else math.nan,
    }


def _answers(reactions: pd.DataFrame) -> dict[str, float]:
    """Return ingest's answer times for the measured reactions sent; a missing answer counts as infinite."""
    sent_ns, not_sent = ledger.integers(reactions["t_sent_ns"])
    answered_ns, no_answer = ledger.integers(reactions["t_answered_ns"])
    status, no_status = ledger.integers(reactions["status"])
    sent = latency.is_measured(reactions) & ~not_sent
    took_ms = (answered_ns[sent] - sent_ns[sent]) / 1e6
    took_ms[(no_answer | no_status | (status == 0))[sent]] = np.inf
    return {
        f"answer_{name}_ms": latency.rank_quantile(took_ms, q) if latency.printable(q, len(took_ms)) else math.nan
        for name, q in (("p50", 0.5), ("p99", 0.99))
    }


def _forms(plan: pd.DataFrame) -> dict[str, int]:
    """Return how a plan was sent: its requests, how many were arrays, and the reactions in another spelling."""
    if "request" not in plan:
        return {"requests": len(plan), "arrays": 0, "respelled": 0}
    sizes = plan["request"].value_counts()
    # As objects: two categories with other values cannot be compared.
    respelled = int((plan["sent_as"].astype(object) != plan["emoji_type"].astype(object)).sum())
    return {"requests": len(sizes), "arrays": int((sizes > 1).sum()), "respelled": respelled}


def _usage(samples: pd.DataFrame, reactions: pd.DataFrame) -> dict[str, float]:
    due = reactions.loc[reactions["phase"] == "measured", "t_intended_ns"]
    if due.empty:
        return {}
    return {
        f"cpu_share_{stage}": share for stage, share in usage.shares(samples, int(due.min()), int(due.max())).items()
    }
