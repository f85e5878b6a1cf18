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

from experiments.load.plan import plan_of
from experiments.load.schedule import (
    BURST_EVERY_NS,
    BURST_FACTOR,
    BURST_FOCUS,
    BURST_NS,
    PLAN_COLUMNS,
    POPULAR_EMOJIS,
    _burst_begins,
    poisson_plan,
    popularity,
    timestamp_of,
    user_names,
)
from experiments.parameters import JUDGED_TRIGGERS, Parameters
from experiments.stats.steadiness import FEWEST_WINDOWS
from experiments.units import NS_PER_S
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


def test_load_goes_on_for_a_trigger_after_the_measured_phase():
    """The reactions of that trigger are of the phase "after", and leave those before them as they are."""
    frame = plan(rate_per_s=200.0, after_triggers=1)
    spans_s = frame.groupby("phase", sort=False)["t_intended_ns"].agg(np.ptp) / NS_PER_S
    assert list(spans_s.index) == ["warm-up", "measured", "after"]
    assert spans_s.tolist() == pytest.approx([12, 30, 6], abs=0.2)


def test_a_seed_has_its_place_on_the_trigger_grid_whenever_the_load_begins():
    """The same seed cuts the same reactions into the same windows: plans differ by a whole number of triggers."""
    one, other = (plan_of(Parameters(rate_per_s=20.0), START_NS + late_ns) for late_ns in (17, 23_456_789_012))
    moved = (other["t_intended_ns"] - one["t_intended_ns"]).unique()
    assert len(moved) == 1
    assert moved[0] % (6 * NS_PER_S) == 0
    assert int(one["t_intended_ns"].iloc[0]) >= START_NS + 17


def test_warm_up_of_a_plan_is_the_longest_that_there_may_be():
    """It ends when the windows settle; fixed is that of a short measurement, of waiting users and of a recording."""
    assert Parameters().longest_warm_up == 20
    assert Parameters(warm_up_triggers=30).longest_warm_up == 30
    for fixed in ({"measured_triggers": JUDGED_TRIGGERS - 1}, {"loop": "closed"}, {"arrivals": "trace"}):
        assert Parameters(**fixed).longest_warm_up == 5
    # Windows begin and end within the measured phase, so that there is one more of them.
    assert JUDGED_TRIGGERS + 1 == FEWEST_WINDOWS


def test_the_plan_of_a_seed_stays_what_it_was():
    """A run can be repeated by its seed: to the last row, with and without the forms of real senders."""
    start_ns = 1_795_426_200 * NS_PER_S + 123
    plain = plan_of(Parameters(array_share=0, forms_share=0), start_ns)[list(PLAN_COLUMNS)]
    assert len(plain) == 24_958
    # Of versions whose emoji had no skin tones.
    untoned = plain.replace({"emoji_type": {"👍🏽": "👍", "🙏🏿": "🙏"}})
    assert pd.util.hash_pandas_object(untoned).sum() == 17433254694046328237
    assert pd.util.hash_pandas_object(plan_of(Parameters(), start_ns)).sum() == 3953335664617092632


def test_a_few_users_send_most_when_activity_is_zipf():
    """The k-th user sends as often as 1/k of the first does; nothing else about the arrivals changes."""
    frame = plan(users=user_names(5), rate_per_s=2_000.0, activity="zipf")
    seen = frame["user_id"].value_counts().reindex(user_names(5))
    assert stats.chisquare(seen, popularity("zipf", 5) * len(frame)).pvalue > 0.001
    gaps_s = np.diff(frame["t_intended_ns"]) / NS_PER_S
    assert stats.kstest(gaps_s, "expon", args=(0, 1 / 2_000)).pvalue > 0.001


def bursts_of(frame):
    """Return each burst's first second, found from the rate: tenfold does not happen by chance."""
    whole_s = ((frame["t_intended_ns"] - frame["t_intended_ns"].min()) // NS_PER_S).to_numpy()
    loud = np.bincount(whole_s) > 3 * 200
    return np.flatnonzero(np.diff(np.append(False, loud).astype(int)) == 1), loud


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_a_burst_is_tenfold_for_five_seconds(seed):
    """Five seconds are loud for each of the three bursts in two minutes; in between the rate is the usual one."""
    frame = plan(seed=seed, rate_per_s=200.0, warm_up_triggers=5, measured_triggers=15, bursts=True)
    _, loud = bursts_of(frame)
    # Two that touch, over the end of a phase or minute, are seen as one: seconds are what can be counted.
    assert 3 * 5 - 1 <= loud.sum() <= 3 * 6
    usual = len(frame) - 3 * 5 * 200 * (BURST_FACTOR - 1)
    assert abs(usual - 200 * 120) < 6 * (200 * 120 + 3 * 5 * 200 * BURST_FACTOR) ** 0.5


@given(seed=st.integers(0, 2**32))
def test_each_minute_of_a_phase_has_one_burst(seed):
    """In 30 s of warm-up, then a minute and a half: one burst each, wholly inside."""
    begins_ns = _burst_begins(np.random.default_rng(seed), 30 * NS_PER_S, 90 * NS_PER_S)
    for since_s, upto_s in ((0, 30), (30, 90), (90, 120)):
        assert ((begins_ns >= since_s * NS_PER_S) & (begins_ns + BURST_NS <= upto_s * NS_PER_S)).sum() == 1
    assert len(begins_ns) == 3


def test_a_burst_is_of_one_type_mostly():
    """While a goal is cheered four in five reactions are of one type, and more than chance besides."""
    frame = plan(rate_per_s=200.0, warm_up_triggers=0, measured_triggers=10, bursts=True, weights="uniform")
    begins, _ = bursts_of(frame)
    start_ns = frame["t_intended_ns"].min() + int(begins[0] + 1) * NS_PER_S
    heart = frame[frame["t_intended_ns"].between(start_ns, start_ns + 3 * NS_PER_S)]
    share = heart["emoji_type"].value_counts(normalize=True).iloc[0]
    assert share == pytest.approx(BURST_FOCUS + (1 - BURST_FOCUS) / 30, abs=0.03)
    rest = frame[frame["t_intended_ns"] < start_ns - 2 * NS_PER_S]
    assert rest.empty or rest["emoji_type"].value_counts(normalize=True).iloc[0] < 0.2


def test_bursts_keep_what_holds_for_every_plan():
    """A plan with bursts is seeded, ordered, numbered, in its phases, and tells a user's reactions apart."""
    changes = {"users": ["solo"], "rate_per_s": 900.0, "bursts": True}
    frame = plan(**changes)
    pd.testing.assert_frame_equal(frame, plan(**changes))
    assert not frame.equals(plan(**changes, seed=4))
    times = frame["t_intended_ns"].to_numpy()
    assert (np.diff(times) >= 0).all()
    assert not (frame["t_intended_ns"] // 1000).duplicated().any()
    assert list(frame["seq"]) == list(range(len(frame)))
    assert ((times >= START_NS) & (times < START_NS + 8 * 6 * NS_PER_S)).all()
    assert (np.diff((frame["phase"] == "measured").astype(int)) >= 0).all()
    assert BURST_NS < BURST_EVERY_NS


def test_plan_of_takes_the_parameters_by_their_names():
    """Each parameter of the load reaches the plan."""
    usual = plan_of(Parameters(), START_NS)
    for change in (
        {"users": 7},
        {"rate_per_s": 20.0},
        {"trigger_s": 2.0},
        {"warm_up_triggers": 21},
        {"warm_up_most_triggers": 6},
        {"measured_triggers": 3},
        {"seed": 2},
        {"popularity": "uniform"},
        {"activity": "zipf"},
        {"arrivals": "bursts"},
    ):
        assert not usual.equals(plan_of(Parameters(**change), START_NS)), change


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
        ({"rate_per_s": 10_000.0, "bursts": True}, "use more users"),
        ({"rate_per_s": 30_000.0, "activity": "zipf"}, "use more users"),
        ({"trigger_s": 2.0, "measured_triggers": 2, "bursts": True}, "measured_triggers take 4 s"),
        ({"activity": "lazy"}, "activity is 'lazy'"),
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
