"""Consumer lag: none where a chain keeps up, however its load scatters, and growing where it does not."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import lag
from experiments.ledger import COLUMNS, placed
from experiments.synthetic import run as synthetic
from experiments.units import NS_PER_S

T_S = 6.0
T_NS = 6 * NS_PER_S
START_NS = 1000 * T_NS


def chain(rate_per_s: float, triggers: int, seed: int, read: list[tuple[int, int]] | None = None, share: float = 1.0):
    """Return the topic and windows of a Poisson load flushed every 500 ms.

    By default every due trigger reads all there is 5 ms later, or at most `share` of the mean; `read` gives
    other (trigger, read up to) moments. The mean is that of the load as it fell out: at 100 reactions a second and
    twenty windows chance alone moves it by 1 %.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.sort(rng.integers(0, triggers * T_NS, rng.poisson(rate_per_s * triggers * T_S)))
    appended = START_NS + -(-arrivals // (NS_PER_S // 2)) * (NS_PER_S // 2) + 2_000_000
    topic = pd.DataFrame({"partition": 0, "offset": np.arange(len(appended)), "appended_ns": appended})
    moments = read or [(START_NS + k * T_NS, START_NS + k * T_NS + 5_000_000) for k in range(1, triggers + 1)]
    most = int(share * len(appended) / triggers) if share < 1 else len(appended)
    rows, first = [], 0
    for number, (trigger_ns, until_ns) in enumerate(moments):
        beyond = min(int(np.searchsorted(appended, until_ns, "right")), first + most)
        offsets = json.dumps({"emoji-events-0": [first, beyond - 1]})
        rows.append(("e", number, trigger_ns, trigger_ns + NS_PER_S // 3, beyond - first, 0, offsets, "[]"))
        first = beyond
    names = ["epoch", "window", "trigger_ns", "emitted_ns", "total", "malformed", "offsets", "reactions"]
    return topic, pd.DataFrame(rows, columns=names).reindex(columns=list(COLUMNS["windows"]))


def found_lags(topic, windows, measured):
    """Return the lags of a topic and its windows at the `measured` ones."""
    return lag.lags(lag.arrivals(placed(topic, windows), T_S), T_S, measured)


def upper_share(rate_per_s: float, *of_chain, **options) -> float:
    """Return the figure the objective is about: upper limit of the slope over the load."""
    topic, windows = chain(rate_per_s, *of_chain, **options)
    return lag.lag_slope(found_lags(topic, windows, windows)).high_per_s / rate_per_s


@pytest.mark.parametrize("rate_per_s", [1, 10, 100, 400])
def test_a_stable_chain_is_never_failed_by_noise(rate_per_s: float):
    """With twenty windows a chain that keeps up passes at every load, for every seed: its lag is 0 each time."""
    assert [upper_share(rate_per_s, 20, seed) for seed in range(20)] == [0.0] * 20


@pytest.mark.parametrize("rate_per_s", [10, 100, 400])
def test_a_chain_that_loses_two_percent_fails(rate_per_s: float):
    """Micro-batches bounded to 98 % of the load leave a lag that grows; its upper limit is above 1 % of the load."""
    shares = [upper_share(rate_per_s, 20, seed, share=0.98) for seed in range(20)]
    assert min(shares) > 0.01


def test_the_slope_of_a_losing_chain_is_its_loss():
    """Over many windows the slope is 2 % of the load."""
    topic, windows = chain(400, 400, 3, share=0.98)
    slope = lag.lag_slope(found_lags(topic, windows, windows))
    assert slope.per_s == pytest.approx(0.02 * len(topic) / (400 * T_S), rel=0.1)
    assert slope.points == 400


def test_micro_batches_that_read_all_but_outlast_the_interval_are_a_growing_lag():
    """Spark without a bound never leaves records behind: its lag is what waits when a trigger is due and missed."""
    moment, took, read = START_NS + T_NS, 6.0, []
    while moment < START_NS + 25 * T_NS:
        read.append((moment, moment + 5_000_000))
        took *= 1.05
        moment += round(took * NS_PER_S)
    topic, windows = chain(100, 25, 1, read=read)
    found = found_lags(topic, windows, windows)
    assert found["lag"].iloc[0] == 0
    assert found["lag"].iloc[-5:].max() > 500
    assert lag.lag_slope(found).high_per_s > 1


def test_lag_counts_each_record_at_the_triggers_it_waited_for():
    """Hand-made: a record read at once, one that a missed trigger left waiting, one that no window has."""
    appended = [5, 11, 13, 14]
    topic = pd.DataFrame({"partition": 0, "offset": range(4), "appended_ns": [s * NS_PER_S for s in appended]})
    windows = pd.DataFrame(
        {
            "epoch": "e",
            "window": [0, 1, 2],
            "trigger_ns": [6 * NS_PER_S, 15 * NS_PER_S, 24 * NS_PER_S],
            "offsets": ['{"emoji-events-0": [0, 0]}', '{"emoji-events-0": [1, 2]}', "{}"],
        }
    ).reindex(columns=list(COLUMNS["windows"]))
    found = found_lags(topic, windows, windows)
    assert list(found["due_ns"] // NS_PER_S) == [6, 12, 18, 24]
    assert list(found["lag"]) == [0, 1, 1, 1]


def test_a_whole_synthetic_run_has_no_lag():
    """The lag of a faultless run with two partitions and probes is 0 at each measured trigger."""
    run = synthetic.make_run(measured_triggers=10)
    windows = run.frames["windows"]
    found = found_lags(run.frames["topic"], windows, windows[windows["window"] >= 2])
    assert len(found) == len(windows) - 2
    assert (found["lag"] == 0).all()
    assert found_lags(run.frames["topic"], windows, windows.iloc[:0]).empty


def test_too_few_points_give_nan():
    """With fewer than eight samples slope and limits are NaN; with eight they are not."""
    assert math.isnan(lag.slope(range(7), range(7)).high_per_s)
    assert lag.slope(range(7), range(7)).points == 7
    assert lag.slope(range(8), range(8)).per_s == pytest.approx(1)
    assert lag.slope(range(8), [5] * 8) == lag.Slope(0.0, 0.0, 0.0, 8)


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.92), (0.5, 0.83)])
def test_the_interval_holds_the_truth_as_often_as_it_says(rho: float, least: float):
    """Of 400 series of 20 points with a known slope, independent or autocorrelated, nearly 95 % are covered."""
    rng = np.random.default_rng(11)
    t_s = np.arange(20) * T_S
    held = 0
    for _ in range(400):
        noise = rng.normal(size=40)
        for i in range(1, 40):
            noise[i] += rho * noise[i - 1]
        found = lag.slope(t_s, 0.3 * t_s + noise[20:])
        held += found.low_per_s <= 0.3 <= found.high_per_s
    assert least <= held / 400 <= 0.99
