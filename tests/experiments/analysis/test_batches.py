"""Micro-batch time: whose batches count, and whether it drifts."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import batches
from experiments.synthetic import run

RUN = run.make_run()
WINDOWS = RUN.frames["windows"]
MEASURED = WINDOWS[WINDOWS["window"] >= 2]


def test_idle_triggers_and_warm_up_do_not_count():
    """Batches that read nothing are left out, and warm-up batches have their own phase."""
    times = batches.batch_times(RUN.frames["progress"], WINDOWS, MEASURED)
    assert list(times["batch_id"]) == list(WINDOWS["window"])
    assert list(times["phase"]) == ["warm-up"] * 2 + ["measured"] * len(MEASURED)
    summary = batches.summarise(times, 6.0)
    measured = RUN.frames["progress"].iloc[2:-1]["trigger_execution_ms"] / 1000
    assert summary.batches == len(measured)
    assert summary.batch_p50_s == np.quantile(measured, 0.5, method="inverted_cdf")
    assert summary.batch_p95_s == measured.max()
    assert summary.headroom == pytest.approx(measured.max() / 6)


def test_equal_batch_numbers_are_matched_by_time():
    """After a new checkpoint numbers begin again; each batch is matched with the window of its own time."""
    later_ns = 3600 * 10**9
    again = WINDOWS.assign(epoch="second", trigger_ns=WINDOWS["trigger_ns"] + later_ns)
    again["emitted_ns"] = again["trigger_ns"] + 10**9
    progress = RUN.frames["progress"]
    second = progress.assign(trigger_start_ns=progress["trigger_start_ns"] + later_ns)
    times = batches.batch_times(pd.concat([progress, second]), pd.concat([WINDOWS, again]), again)
    assert len(times) == 2 * len(WINDOWS)
    assert list(times["phase"]) == ["warm-up"] * len(WINDOWS) + ["measured"] * len(WINDOWS)
    assert (times["published_s"].tail(len(WINDOWS)) == 1.0).all()


def test_no_batches_are_not_measured_rather_than_zero():
    """Without progress every figure is NaN."""
    times = batches.batch_times(RUN.frames["progress"].iloc[:0], WINDOWS, MEASURED)
    summary = batches.summarise(times, 6.0)
    assert summary.batches == 0
    assert math.isnan(summary.batch_p50_s)
    assert math.isnan(summary.headroom)


def test_drift_is_found_and_an_outlier_is_not_drift():
    """A rise of 20 ms a minute is found; steady values with one slow batch are steady."""
    trigger_ns = pd.Series(np.arange(40) * 6 * 10**9)
    noise = np.random.default_rng(5).normal(0, 0.005, 40)
    rising = batches.drift(trigger_ns, pd.Series(0.3 + trigger_ns / 60e9 * 0.020 + noise))
    assert rising.present
    assert rising.slope_ms_per_min == pytest.approx(20, abs=3)
    steady = 0.3 + noise
    steady[37] = 4.0
    assert not batches.drift(trigger_ns, pd.Series(steady)).present
    assert not batches.drift(trigger_ns.head(7), pd.Series(steady[:7])).present
