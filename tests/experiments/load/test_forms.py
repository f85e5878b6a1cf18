"""Forms: arrays and other spellings change how a plan is sent, and nothing of what is counted."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import ledger
from experiments.load.forms import ARRAY_SIZES, as_real_senders, requests, spellings
from experiments.load.schedule import PLAN_COLUMNS, POPULAR_EMOJIS, poisson_plan, timestamp_of, user_names
from experiments.units import NS_PER_S, NS_PER_US
from pipeline.emojis import canonical
from pipeline.ingest import intake

START_NS = 1_795_426_200 * NS_PER_S


def plain(rate_per_s: float = 500.0, users: int = 100, seed: int = 1) -> pd.DataFrame:
    """Return a plan of two warm-up and five measured seconds."""
    names = user_names(users)
    return poisson_plan(names, rate_per_s, START_NS, trigger_s=1, warm_up_triggers=2, measured_triggers=5, seed=seed)


def test_without_shares_the_plan_is_what_it_was() -> None:
    """Each reaction has a request of its own, at its time, fully qualified."""
    plan = plain()
    shaped = as_real_senders(plan, 0.0, 0.0, 1)
    pd.testing.assert_frame_equal(shaped[list(PLAN_COLUMNS)], plan)
    assert list(shaped["request"]) == list(range(len(plan)))
    assert list(shaped["sent_as"]) == list(plan["emoji_type"])


@given(
    seed=st.integers(0, 2**31),
    rate_per_s=st.sampled_from([3.0, 100.0, 4_000.0]),
    share=st.sampled_from([0.02, 0.3, 1.0]),
    users=st.sampled_from([1, 40]),
)
@settings(max_examples=25, deadline=None)
def test_arrays_keep_order_phase_and_identity(seed: int, rate_per_s: float, share: float, users: int) -> None:
    """Reactions, users, emoji and phases stay; times stay in order; a user and a microsecond name one reaction."""
    plan = plain(min(rate_per_s, 100.0) if users == 1 else rate_per_s, users, seed)
    shaped = as_real_senders(plan, share, 0.5, seed)
    same = [name for name in PLAN_COLUMNS if name != "t_intended_ns"]
    pd.testing.assert_frame_equal(shaped[same], plan[same])
    later_ns = shaped["t_intended_ns"] - plan["t_intended_ns"]
    assert later_ns.max() < ARRAY_SIZES[1] * NS_PER_US
    assert (np.diff(shaped["t_intended_ns"]) >= 0).all()
    us = shaped["t_intended_ns"] // NS_PER_US
    assert not pd.DataFrame({"user": shaped["user_id"], "us": us}).duplicated().any()
    whole = shaped.groupby("request")
    assert whole["phase"].nunique().eq(1).all()
    assert whole["t_intended_ns"].agg(lambda t: t.max() - t.min()).max() < ARRAY_SIZES[1] * NS_PER_US
    assert whole.size().max() <= ARRAY_SIZES[1]
    assert (np.diff(requests(shaped).due_ns) >= 0).all()


def test_the_shares_are_those_asked_for() -> None:
    """Of the requests that many are arrays, of every size, and of the reactions that many have another spelling."""
    shaped = as_real_senders(plain(6_000.0), 0.05, 0.2, 7)
    sizes = shaped["request"].value_counts()
    assert (sizes > 1).mean() == pytest.approx(0.05, abs=0.005)
    assert set(sizes[sizes > 1]) == {2, 3, 4, 5}
    assert (shaped["sent_as"] != shaped["emoji_type"]).mean() == pytest.approx(0.2, abs=0.01)


def test_the_seed_decides_the_forms() -> None:
    """The same seed gives the same, another one other arrays and spellings."""
    plan = plain()
    pd.testing.assert_frame_equal(as_real_senders(plan, 0.1, 0.1, 3), as_real_senders(plan, 0.1, 0.1, 3))
    other = as_real_senders(plan, 0.1, 0.1, 4)
    assert not as_real_senders(plan, 0.1, 0.1, 3)["request"].equals(other["request"])
    assert not as_real_senders(plan, 0.1, 0.1, 3)["sent_as"].equals(other["sent_as"])


@pytest.mark.parametrize("emoji_type", [*POPULAR_EMOJIS, "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👩🏽‍❤️‍👨🏿", "1️⃣", "☺️"])
def test_every_spelling_is_counted_as_its_emoji(emoji_type: str) -> None:
    """Ingest's own reading, which decides what the oracle counts, takes each spelling for the emoji of the plan."""
    others = spellings(emoji_type)
    assert others
    assert emoji_type not in others
    bodies = [
        json.dumps({"user_id": "ada", "emoji_type": text, "timestamp": timestamp_of(START_NS)}) for text in others
    ]
    for body in bodies:
        (reaction,) = intake.read(body.encode(), 1_000)
        assert json.loads(intake.records([reaction], 0)[0] + b"}")["emoji_type"] == emoji_type


def test_some_spellings_are_those_that_unicode_lists_and_some_are_not() -> None:
    """Both ways in which ingest finds an emoji are in the load."""
    assert "❤" in spellings("❤️")
    assert canonical("❤") == "❤️"
    assert any(canonical(text) is None for text in spellings("👍🏽"))


def test_requests_carry_every_reaction_once() -> None:
    """What ingest reads of the requests is the plan: users, emoji and moments, in order, with each row's request."""
    shaped = as_real_senders(plain(300.0), 0.3, 0.3, 5)
    made = requests(shaped)
    read = [(number, each) for number, body in enumerate(made.bodies) for each in intake.read(body, 1_000)]
    assert [number for number, _ in read] == made.of_row.tolist()
    assert [each.user_id for _, each in read] == list(shaped["user_id"])
    stamps = [each.timestamp.isoformat(timespec="microseconds").replace("+00:00", "Z") for _, each in read]
    assert stamps == [timestamp_of(t_ns) for t_ns in shaped["t_intended_ns"]]
    topic = pd.DataFrame({"user_id": shaped["user_id"], "timestamp": stamps, "emoji_type": shaped["emoji_type"]})
    assert list(ledger.identified(shaped, topic)) == list(range(len(shaped)))
    # No reaction goes out before its own time.
    assert (made.due_ns[made.of_row] >= shaped["t_intended_ns"]).all()


def test_a_plan_of_nothing_has_no_request() -> None:
    """An empty part of a plan is no error."""
    shaped = as_real_senders(plain().iloc[:0], 0.5, 0.5, 1)
    assert requests(shaped).bodies == []
