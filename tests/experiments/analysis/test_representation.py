"""Representation: errors by hand, every policy within its bound, and wrong representatives found in their cell."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.analysis import analyse
from experiments.analysis.representation import representation, representatives_wrong, tv_distance
from experiments.ledger import LedgerError, cells
from experiments.synthetic import run as synthetic
from pipeline.errors import SettingError
from spark.policies import POLICIES, represent

RUNS = {policy: synthetic.make_run(rate_per_s=15.0, policy=policy) for policy in POLICIES}
WINDOWS = RUNS["ceil"].frames["windows"]


def windows_of(*cells):
    """Return one window with cells (type, count, representatives)."""
    text = json.dumps([{"emoji_type": t, "count": c, "representatives": r} for t, c, r in cells])
    return WINDOWS.head(1).assign(reactions=text)


def test_representation_by_hand():
    """Error, bound and distance of a window small enough to compute on paper."""
    result = representation(windows_of(("a", 15, 2), ("b", 5, 1)))
    assert result.error == pytest.approx((5 + 5) / 20)
    assert result.bound == pytest.approx(18 / 20)
    assert result.tv_distance == pytest.approx(abs(15 / 20 - 2 / 3))
    assert result.over_bound.empty


def test_showing_nothing_has_the_largest_error():
    """Where no type has a representative nothing of the mix is shown: the distance is 1, not half of it."""
    assert representation(windows_of(("a", 4, 0), ("b", 5, 0)), policy="floor").tv_distance == 1.0
    counted = pd.Series([4, 5])
    assert tv_distance(counted, pd.Series([0, 0])) == 1.0
    assert tv_distance(counted, counted) == 0.0
    assert math.isnan(tv_distance(counted * 0, counted * 0))


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(1, 30))
@settings(deadline=None)
def test_ceil_is_always_within_its_bound(counts, group):
    """Whatever the counts, ceil stays within group - 1 a cell; one representative fewer or more does not."""
    right = [(str(i), count, -(-count // group)) for i, count in enumerate(counts)]
    result = representation(windows_of(*right), group_size=group)
    assert result.over_bound.empty
    assert result.error <= result.bound + 1e-12
    for by in (-1, 1):
        wrong = [(kind, count, shown + by) for kind, count, shown in right]
        assert len(representation(windows_of(*wrong), group_size=group).over_bound) == len(counts)


@given(st.sampled_from(POLICIES), st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(1, 30))
@settings(deadline=None)
def test_every_policy_is_within_its_bound(policy, counts, group):
    """Whatever the counts, no cell of any policy is over its bound; a whole group more or fewer always is."""
    said = {str(i): count for i, count in enumerate(counts)}
    carried = dict.fromkeys(said, group - 1)
    shown = represent(policy, said, group, epoch="e", window=0, carried=carried).representatives
    result = representation(windows_of(*((k, c, shown[k]) for k, c in said.items())), group_size=group, policy=policy)
    assert result.over_bound.empty
    assert result.error <= result.bound + 1e-12
    for by in (-2, 2):
        wrong = windows_of(*((k, c, shown[k] + by) for k, c in said.items()))
        assert len(representation(wrong, group_size=group, policy=policy).over_bound) == len(counts)


def test_representation_of_nothing_and_of_an_unknown_policy():
    """No counts give NaN; a policy that does not exist is refused."""
    assert math.isnan(representation(windows_of()).error)
    with pytest.raises(SettingError, match="'nearest'"):
        representation(WINDOWS, policy="nearest")


def wrong(windows, policy):
    """The wrong cells of a synthetic run's windows."""
    return representatives_wrong(windows, group_size=synthetic.GROUP_SIZE, policy=policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_faultless_run_has_no_wrong_representative(policy):
    """Each policy recomputes to what was shown, also when the run joined the chain later or windows came twice."""
    windows = RUNS[policy].frames["windows"]
    assert wrong(windows, policy).empty
    assert wrong(windows.iloc[3:], policy).empty
    assert wrong(windows.drop(index=2), policy).empty, "what is missing is the offsets' to name"
    assert wrong(pd.concat([windows, windows.iloc[[3]]]), policy).empty
    assert sum(len(wrong(windows, other)) > 0 for other in POLICIES) == 3, "the other policies are detected"


@pytest.mark.parametrize("policy", POLICIES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_one_wrong_representative_is_named_once(policy, data):
    """Any single cell that shows one more or fewer than it should is named, with what it should have shown."""
    windows = RUNS[policy].frames["windows"].copy()
    number = data.draw(st.integers(0, len(windows) - 1))
    by = data.draw(st.sampled_from([-1, 1]))
    said = json.loads(windows.loc[number, "reactions"])
    cell = data.draw(st.sampled_from(said))
    cell["representatives"] += by
    windows.loc[number, "reactions"] = json.dumps(said)
    found = wrong(windows, policy)
    assert found[["window", "emoji_type", "count", "representatives", "expected"]].to_numpy().tolist() == [
        [number, cell["emoji_type"], cell["count"], cell["representatives"], cell["representatives"] - by]
    ]


def test_a_remainder_that_was_lost_is_named():
    """A type that was carried, did not occur and is carried no more is wrong, though nothing was shown for it."""
    windows = RUNS["carry"].frames["windows"].copy()
    gone = next(
        (number, kind)
        for number in range(1, len(windows))
        for kind in json.loads(windows.loc[number, "carried"])
        if kind not in set(cells(windows.loc[[number]])["emoji_type"])
    )
    carried = json.loads(windows.loc[gone[0], "carried"])
    rest = carried.pop(gone[1])
    windows.loc[gone[0], "carried"] = json.dumps(carried)
    found = wrong(windows, "carry")
    first = found.iloc[0]
    assert (first["window"], first["emoji_type"], first["carried"], first["expected_carried"]) == (*gone, 0, rest)
    assert set(found["emoji_type"]) == {gone[1]}


def test_a_window_that_fits_no_remainder_is_wrong_even_if_it_is_the_first_known():
    """Joining late, a cell that no remainder below a group can explain is still found."""
    late = windows_of(("a", 15, 4)).assign(window=7)
    assert wrong(late, "carry")["emoji_type"].tolist() == ["a"]
    assert wrong(windows_of(("a", 15, 2)).assign(window=7, carried='{"a": 4}'), "carry").empty
    assert not wrong(windows_of(("a", 15, 2)).assign(window=7, carried='{"a": 14}'), "carry").empty
    assert not wrong(windows_of(("a", 15, 2)).assign(window=0, carried='{"a": 4}'), "carry").empty, "nothing before 0"


def test_unreadable_carried_names_its_window():
    """A window whose `carried` is no object of numbers is named."""
    with pytest.raises(LedgerError, match=rf"{synthetic.EPOCH}:0 has carried '\[1\]'"):
        wrong(WINDOWS.head(1).assign(carried="[1]"), "carry")


def test_the_summary_counts_wrong_representatives():
    """The key is there for an objective: 0 for a faultless run, and the number of wrong cells for another's policy."""
    run = RUNS["carry"]
    assert analyse.analyse(run.frames, run.parameters, run.manifest).summary["representatives_wrong"] == 0
    taken_for_ceil = analyse.analyse(run.frames, run.parameters | {"policy": "ceil"}, run.manifest).summary
    assert taken_for_ceil["representatives_wrong"] > 0
