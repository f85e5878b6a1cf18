"""The plan: open-loop, seeded, Poisson, and joinable."""

from __future__ import annotations

from datetime import datetime

import emoji
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.schedule import (
    NS_PER_S,
    POPULAR_EMOJIS,
    poisson_plan,
    popularity,
    timestamp_of,
    user_names,
)
from pipeline.errors import SettingError

START_NS = 1_795_426_200 * NS_PER_S


def plan(**changes):
    """Return a small plan, with `changes` to its arguments."""
    arguments = {
        "users": user_names(7),
        "rate_per_s": 30.0,
        "start_ns": START_NS,
        "trigger_s": 6.0,
        "warm_up_triggers": 2,
        "measured_triggers": 5,
        "seed": 3,
    } | changes
    return poisson_plan(arguments.pop("users"), arguments.pop("rate_per_s"), arguments.pop("start_ns"), **arguments)


@given(seed=st.integers(0, 2**32), rate=st.floats(0.5, 80), trigger_s=st.sampled_from([0.5, 2.0, 6.0]))
@settings(max_examples=40, deadline=None)
def test_plan_is_ordered_bounded_and_joinable(seed, rate, trigger_s):
    """A plan is in order of time, lies in its phases, and tells a user's reactions apart."""
    frame = plan(seed=seed, rate_per_s=rate, trigger_s=trigger_s)
    times = frame["t_intended_ns"].to_numpy()
    assert (np.diff(times) >= 0).all()
    assert list(frame["seq"]) == list(range(len(frame)))
    trigger_ns = round(trigger_s * NS_PER_S)
    assert ((times >= START_NS) & (times < START_NS + 8 * trigger_ns)).all()
    assert (np.diff((frame["phase"] == "measured").astype(int)) >= 0).all()
    measured = times[frame["phase"] == "measured"]
    assert len(measured) == 0 or np.ptp(measured) < 5 * trigger_ns
    assert not pd.DataFrame({"u": frame["user_id"], "t": times // 1000}).duplicated().any()


def test_same_seed_same_plan_and_another_seed_another():
    """The seed decides the whole plan."""
    pd.testing.assert_frame_equal(plan(seed=11), plan(seed=11))
    assert not plan(seed=11).equals(plan(seed=12))


def test_colliding_microseconds_are_drawn_again():
    """One user at a rate at which collisions are certain still never sends twice in a microsecond."""
    frame = plan(users=["solo"], rate_per_s=9_000.0, trigger_s=1.0, warm_up_triggers=0, measured_triggers=3)
    assert not (frame["t_intended_ns"] // 1000).duplicated().any()


def test_arrivals_are_poisson_and_start_offset_uniform():
    """Gaps are exponential at the asked rate, and over seeds loads start evenly over the trigger interval."""
    gaps_s = np.diff(plan(rate_per_s=200.0)["t_intended_ns"]) / NS_PER_S
    assert stats.kstest(gaps_s, "expon", args=(0, 1 / 200)).pvalue > 0.001
    starts = [
        plan(seed=seed, rate_per_s=500.0, warm_up_triggers=0, measured_triggers=1)["t_intended_ns"].min()
        for seed in range(150)
    ]
    offsets_s = (np.array(starts) - START_NS) / NS_PER_S
    assert stats.kstest(offsets_s, "uniform", args=(0, 6)).pvalue > 0.001


def test_measured_phase_falls_evenly_on_the_trigger_grid():
    """The measured reactions' place within a trigger interval is uniform, wherever the load began."""
    frame = plan(rate_per_s=2_000.0)
    measured = frame.loc[frame["phase"] == "measured", "t_intended_ns"]
    place_s = (measured % (6 * NS_PER_S)) / NS_PER_S
    assert stats.kstest(place_s, "uniform", args=(0, 6)).pvalue > 0.001


@given(st.integers(0, 4_000_000_000 * NS_PER_S))
def test_timestamp_is_the_floored_microsecond(t_ns):
    """A timestamp reads back as exactly the microsecond the time was floored to."""
    text = timestamp_of(t_ns)
    assert len(text) == 27
    assert text.endswith("Z")
    seconds, micros = divmod(t_ns // 1000, 1_000_000)
    read = datetime.fromisoformat(text)
    assert (int(read.replace(microsecond=0).timestamp()), read.microsecond) == (seconds, micros)


def test_popular_emojis_are_fully_qualified():
    """Ingest keeps every planned emoji as it is, so a plan and the topic can be compared."""
    kinds = {emoji.EMOJI_DATA[text]["status"] for text in POPULAR_EMOJIS}
    assert kinds == {emoji.STATUS["fully_qualified"]}
    assert len(set(POPULAR_EMOJIS)) == 30


def test_popularity_sums_to_one():
    """Both kinds of popularity are probabilities, and zipf falls."""
    for kind in ("uniform", "zipf"):
        assert popularity(kind, 30).sum() == pytest.approx(1)
    assert (np.diff(popularity("zipf", 30)) < 0).all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rate_per_s": 0}, "rate_per_s is 0"),
        ({"rate_per_s": float("nan")}, "rate_per_s is nan"),
        ({"rate_per_s": 1e9}, "use more users"),
        ({"trigger_s": -1}, "trigger_s is -1"),
        ({"warm_up_triggers": -1}, "warm_up_triggers is -1"),
        ({"measured_triggers": 0}, "measured_triggers is 0"),
        ({"users": []}, "users has 0"),
        ({"users": ["a", "a"]}, "users has 2"),
        ({"emojis": []}, "emojis has 0"),
        ({"weights": "normal"}, "'normal'"),
        ({"weights": [1.0]}, "one per emoji"),
    ],
)
def test_impossible_plans_are_refused_by_name(changes, named):
    """An argument no plan can be made of is named with its value."""
    with pytest.raises(SettingError, match=named):
        plan(**changes)


def test_no_users_is_refused():
    """A load without users is refused."""
    with pytest.raises(SettingError, match="users is 0"):
        user_names(0)
