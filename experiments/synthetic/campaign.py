"""A campaign of known truth on disk, so that readers of campaigns can be tested without a chain.

One synthetic run is analysed once. Each run of the campaign has all figures of its summary, shifted by its level and by
random scatter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis import hops, verdict
from experiments.analysis.analyse import Analysis, analyse, percentile_table
from experiments.analysis.latency import Histogram, rank_quantile
from experiments.synthetic.run import make_run
from experiments.units import NS_PER_MS

LEVELS: tuple[dict[str, Any], ...] = (
    {"users": 1, "rate_per_s": 1, "clients": 1},
    {"users": 100, "rate_per_s": 100, "clients": 100},
    {"users": 400, "rate_per_s": 400, "clients": 100},
)
SLOS: dict[str, float] = {
    "e2e_excess_p99_s": 2.0,
    "headroom": 0.8,
    "lag_slope_upper_share": 0.01,
    "lost": 0,
    "duplicated": 0,
    "oracle_share": 1.0,
    "deliveries_missing": 0,
    "deliveries_duplicate": 0,
}
AT_LEAST = ("oracle_share",)
CPU_SHARES = {
    "kafka": 0.20,
    "spark": 0.30,
    "ingest": 0.15,
    "registry": 0.01,
    "main-publisher": 0.02,
    "cluster-publisher": 0.04,
    "subscriber": 0.10,
    "load": 0.10,
    "receivers": 0.08,
}
"""Mean cores used while measured, of every stage that a run samples."""

Truth = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def steady(factors: Mapping[str, Any]) -> dict[str, Any]:
    """Return no figures: the chain is the same at every level."""
    return {}


def write_synthetic(
    campaign_dir: Path,
    *,
    levels: Sequence[Mapping[str, Any]] = LEVELS,
    blocks: int = 3,
    truth: Truth = steady,
    noise: float = 0.02,
    seed: int = 1,
    search: Mapping[str, Any] | None = None,
    faults: Mapping[int, Mapping[str, Any]] | None = None,
    unfinished: int = 0,
) -> dict[str, Any]:
    """Write a campaign of `blocks` randomised blocks over `levels` and return its campaign.json.

    `truth(factors)` gives the figures of a level: any keys of a summary, and `shift_s`, the distance of its latency
    from the synthetic run's. Runs scatter about it: floats of `truth` are multiplied by exp(N(0, noise)), and every
    latency is moved by N(0, noise) s. `faults[index]` overrides figures of one run exactly; `reasons` in it make the
    run INVALID, `changes` UNSTEADY. The last `unfinished` runs of the order are planned but missing. With `search` the
    levels are its probes, once each, in the order given.
    """
    rng = np.random.default_rng([seed, 4])
    order = _order(rng, levels, 1 if search else blocks, shuffled=search is None)
    done: list[dict[str, Any]] = []
    for planned in order[: len(order) - unfinished]:
        own = dict(truth(planned["factors"]))
        shift_s = float(own.pop("shift_s", 0.0)) + float(rng.normal(0, noise))
        scattered = {
            key: value * float(np.exp(rng.normal(0, noise))) if isinstance(value, float) else value
            for key, value in own.items()
        }
        fault = dict((faults or {}).get(planned["index"], {}))
        reasons, changes = (list(fault.pop(name, ())) for name in ("reasons", "changes"))
        offered = float(planned["factors"].get("rate_per_s", synthetic_run().summary["planned"] / 48))
        summary, histogram = _summary(shift_s, offered, {**scattered, **fault})
        done.append(_write_run(campaign_dir, planned, summary, histogram, reasons, changes))
    design = {
        "name": "synthetic",
        "about": "A campaign of known truth.",
        "notebook": "run",
        "seed": seed,
        "blocks": blocks,
        "warm_up_triggers": 2,
        "measured_triggers": 6,
        "parameters": {"trigger_s": 6.0},
        "levels": [] if search else [dict(level) for level in levels],
        "slos": SLOS,
        "search": dict(search) if search else None,
    }
    campaign = {
        "campaign": campaign_dir.name,
        "design": design,
        "design_sha256": "0" * 64,
        "started": _moment(0),
        "ended": None if unfinished else _moment(len(order)),
        "order": order,
        "runs": done,
        "abandoned": [],
    }
    campaign_dir.mkdir(parents=True, exist_ok=True)
    _write_json(campaign_dir / "campaign.json", campaign)
    return campaign


@cache
def synthetic_run() -> Analysis:
    """Return the analysis of the one synthetic run that all others are derived from."""
    run = make_run()
    return analyse(run.frames, run.parameters, run.manifest)


def _order(
    rng: np.random.Generator, levels: Sequence[Mapping[str, Any]], blocks: int, *, shuffled: bool
) -> list[dict[str, Any]]:
    order: list[dict[str, Any]] = []
    for block in range(1, blocks + 1):
        for number in rng.permutation(len(levels)) if shuffled else range(len(levels)):
            factors = dict(levels[number])
            order.append(
                {
                    "index": len(order),
                    "block": block,
                    "level": ", ".join(f"{name}={value}" for name, value in factors.items()),
                    "factors": factors,
                    "parameters": {"trigger_s": 6.0, **factors, "seed": len(order) + 1},
                }
            )
    return order


def _summary(shift_s: float, offered: float, figures: Mapping[str, Any]) -> tuple[dict[str, Any], Histogram]:
    base = synthetic_run()
    histogram = base.end_to_end.histogram
    histogram = replace(histogram, first_ms=histogram.first_ms + round(shift_s * 1000))
    over = replace(base.excess, values_ns=base.excess.values_ns + round(shift_s * 1000) * NS_PER_MS)
    rows = percentile_table(histogram, over).set_index("percentile")
    means = dict(zip(base.hops["hop"], base.hops["mean_ms"], strict=True))
    means["micro_batch"] += shift_s * 1000
    total_s = sum(means.values()) / 1000
    batch_s = base.batches.loc[base.batches["phase"] == "measured", "batch_s"].to_numpy() + shift_s
    p95_s = rank_quantile(batch_s, 0.95)
    slope = figures.get("lag_slope_upper_per_s", 0.001 * offered)
    summary = {
        **{key: value for key, value in base.summary.items() if key not in ("valid", "unsteady", "passed", "slos")},
        **{f"e2e_{name}_s": float(rows["observed_s"][name]) for name in ("p50", "p90", "p99")},
        **{f"e2e_excess_{name}_s": float(rows["excess_s"][name]) for name in ("p50", "p90", "p99")},
        "excess_worst_window_s": base.excess.worst_s + shift_s,
        "batch_p50_s": rank_quantile(batch_s, 0.5),
        "batch_p95_s": p95_s,
        "headroom": p95_s / base.conditions.waits.trigger_s,
        "e2e_mean_s": total_s,
        "hops_mean_s": total_s,
        "hop_sum_error_s": 0.0,
        "lag_slope_per_s": 0.0,
        "lag_slope_upper_per_s": slope,
        "lag_slope_upper_share": slope / offered,
        "offered_per_s": offered,
        "accepted_per_s": offered,
        "representatives_wrong": 0,
        **{f"hop_{name}_mean_ms": means[name] for name in hops.HOPS},
        **{f"cpu_share_{stage}": share for stage, share in CPU_SHARES.items()},
    }
    return {**summary, **figures}, histogram


def _write_run(
    campaign_dir: Path,
    planned: Mapping[str, Any],
    summary: dict[str, Any],
    histogram: Histogram,
    reasons: list[str],
    changes: list[str],
) -> dict[str, Any]:
    slos = [verdict.Slo(key, key, limit, "", at_least=key in AT_LEAST) for key, limit in SLOS.items()]
    judged = verdict.judge(reasons, summary, slos, unsteady=changes)
    summary |= {
        "valid": judged.valid,
        "unsteady": judged.unsteady,
        "passed": judged.passed,
        "slos": {slo.key: slo.passed for slo in judged.slos},
    }
    started = _moment(planned["index"])
    name = started.replace("-", "").replace(":", "").removesuffix("Z")
    run_dir = campaign_dir / "runs" / name
    (run_dir / "summary").mkdir(parents=True, exist_ok=True)
    _write_json(run_dir / "summary.json", {key: _written(value) for key, value in summary.items()})
    _write_json(run_dir / "verdict.json", judged.to_json())
    manifest = {"run": name, "started": started, "commit": "synthetic", "dirty": False, "cores": 2}
    _write_json(run_dir / "manifest.json", {**manifest, "parameters": planned["parameters"]})
    return {
        **{key: planned[key] for key in ("index", "block", "level", "factors")},
        "run": name,
        "started": started,
        "ended": _moment(planned["index"] + 1),
        "valid": judged.valid,
        "unsteady": judged.unsteady,
        "passed": judged.passed,
        "reasons": [*reasons, *changes],
    }


def _moment(index: int) -> str:
    moment = pd.Timestamp("2026-11-24T16:00:00Z") + pd.Timedelta(minutes=4 * index)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _written(value: Any) -> Any:
    # As report.write does: strict JSON has neither NaN (not measured) nor infinity (never arrived).
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
