"""The ledger's audit of a run by JMeter, in figures: JMeter's samples beside what Kafka and the windows hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments import ledger
from experiments.analysis import latency
from experiments.jmeter.samples import REFUSED
from experiments.units import NS_PER_MS

_TO_WINDOW = {"p50_ms": 0.5, "p99_ms": 0.99}


def to_window_ms(reactions: pd.DataFrame, windows: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return, of each measured and accepted reaction, the time from its send until its window was emitted, ms.

    A reaction that no window counts has +inf. `reactions` and `windows` are frames of the ledger.
    """
    emitted = ledger.unique_windows(windows)[[*ledger.WINDOW_KEY, "emitted_ns"]]
    counted = latency.measured(reactions)[["t_sent_ns", *ledger.WINDOW_KEY]].merge(
        emitted.astype({"window": "Int64", "emitted_ns": "Int64"}), on=ledger.WINDOW_KEY, how="left"
    )
    took = (counted["emitted_ns"] - counted["t_sent_ns"]) / NS_PER_MS
    return took.to_numpy(dtype=np.float64, na_value=np.inf)


def figures(
    samples: pd.DataFrame, reactions: pd.DataFrame, windows: pd.DataFrame, summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a run by JMeter measured.

    `samples` are JMeter's, `reactions` the joined ledger and `summary` the run's. `p50_ms` and `p99_ms` are from
    JMeter's own send of a measured reaction until its window was emitted, `answer_*_ms` until its answer, and
    `screen_*_s` until it was on the clients' screens, that from its timestamp.
    """
    took_ms = to_window_ms(reactions, windows)
    return {
        "samples": len(samples),
        "errors": int((~samples["success"]).sum()),
        "refused_as_expected": int((samples["label"].str.startswith(REFUSED) & samples["success"]).sum()),
        **{name: summary[name] for name in ("accepted", "in_topic", "counted", "lost", "duplicated", "altered")},
        **{name: summary[name] for name in ("foreign", "oracle_cells", "oracle_equal")},
        **{name: round(latency.rank_quantile(took_ms, q), 1) for name, q in _TO_WINDOW.items()},
        "answer_p50_ms": summary["answer_p50_ms"],
        "answer_p99_ms": summary["answer_p99_ms"],
        "screen_p50_s": summary["e2e_p50_s"],
        "screen_p99_s": summary["e2e_p99_s"],
        "reactions_measured": len(took_ms),
        "reactions_per_s": round(summary["throughput_per_s"], 1),
        "valid": summary["valid"],
        "verdict": "VALID" if summary["valid"] else "UNSTEADY" if summary["unsteady"] else "INVALID",
        "reasons": summary["reasons"],
    }


def faults(found: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a run's `figures`, each in words; empty if nothing is.

    Counts must be exact: each reaction that JMeter saw accepted is in Kafka, and in the windows, once.
    """
    kinds = {
        "errors": "samples failed",
        "lost": "accepted reactions were counted by no window",
        "duplicated": "reactions were counted again",
        "altered": "reactions changed on their way",
        "foreign": "counted reactions are not JMeter's",
    }
    wrong = [f"{found[name]:,} {words}" for name, words in kinds.items() if found[name]]
    if differing := found["oracle_cells"] - found["oracle_equal"]:
        wrong.append(f"{differing:,} of {found['oracle_cells']:,} counts differ from the recount")
    return wrong


def failures(samples: pd.DataFrame, most: int = 10) -> pd.DataFrame:
    """Return the failed samples by kind: `label, responseCode, failureMessage, samples`, the most frequent first."""
    failed = samples[~samples["success"]]
    kinds = failed.groupby(["label", "responseCode", "failureMessage"], as_index=False).size()
    return kinds.rename(columns={"size": "samples"}).sort_values("samples", ascending=False).head(most)


def by_label(samples: pd.DataFrame) -> pd.DataFrame:
    """Return `label, samples, errors, p50_ms, p99_ms` of JMeter's own times; all refusals are one row."""
    refused = samples["label"].str.startswith(REFUSED)
    grouped = samples.assign(label=samples["label"].mask(refused, "bad input, refused"))
    rows = []
    for label, group in grouped.groupby("label", sort=False):
        took = group["elapsed"].to_numpy(dtype=np.float64)
        p50, p99 = (latency.rank_quantile(took, q) for q in (0.5, 0.99))
        rows.append((label, len(group), int((~group["success"]).sum()), p50, p99))
    return pd.DataFrame(rows, columns=["label", "samples", "errors", "p50_ms", "p99_ms"])
