"""The policies compared: windows of a trace, errors by hand, and figures and findings that follow from them."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.policies import errors as representatives
from experiments.policies import figures as representatives_figures
from pipeline.errors import SettingError
from spark.policies import POLICIES

HOW = {"group_size": 10, "epoch": "e"}
# Six windows of 7 of one type, and one window of 10 of another.
SMALL = pd.DataFrame({"window": [*range(6), 2], "emoji_type": [*"😂" * 6, "🔥"], "count": [*[7] * 6, 10]})
EMPTY = SMALL.iloc[:0]
COUNTS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from("😂🔥👏"), st.integers(1, 40)), max_size=20).map(
    lambda rows: pd.DataFrame(rows, columns=list(SMALL.columns)).drop_duplicates(["window", "emoji_type"])
)


def by_policy(counts, **how):
    """The errors of each policy as a mapping."""
    return representatives.errors(counts, **(HOW | how)).set_index("policy").to_dict("index")


def test_windows_begin_at_multiples_of_the_trigger():
    """A reaction at the very edge is in the later window, several of a type count together, a null type not at all."""
    counts = representatives.windowed([0, 5999, 6000, 6001, 6002, 30_000], ["a", "a", "b", "a", None, "a"], 6.0)
    assert counts.to_numpy().tolist() == [[0, "a", 2], [1, "a", 1], [1, "b", 1], [5, "a", 1]]
    with pytest.raises(SettingError, match="trigger_s is 0"):
        representatives.windowed([0], ["a"], 0)


def test_what_is_not_one_emoji_is_counted_and_named():
    """Spellings of one emoji count together; words, two emoji and empty entries are listed as refused."""
    typed = pd.Series(["❤", "❤️", "👍🏽", "👨‍👩‍👧", "🇫🇷", "boo", "😂😂", "boo", "", None])
    spelled, refused = representatives.recognised(typed)
    assert spelled.dropna().tolist() == ["❤️", "❤️", "👍🏽", "👨‍👩‍👧", "🇫🇷"]
    assert refused.to_numpy().tolist()[0] == ["boo", 2]
    assert set(refused["emoji_type"]) == {"boo", "😂😂", "", None}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("offset_ms,emoji\n1,😂\n", "lacks 'emoji_type': begin it with the line offset_ms,emoji_type"),
        ("offset_ms,emoji_type\nsoon,😂\n", "line 2, column offset_ms is 'soon'"),
        (None, "does not exist: give the path of a CSV with offset_ms,emoji_type"),
        ("offset_ms,emoji_type\n,😂\n", "line 2, column offset_ms is ''"),
    ],
)
def test_a_trace_that_cannot_be_read_is_named(tmp_path, text, named):
    """A file that is not there, lacks a column or holds no number where it should is named with what it needs."""
    path = tmp_path / "trace.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=rf"trace .*trace\.csv.*{named}"):
        representatives.recorded(path)


def test_a_trace_is_read_as_it_was_typed(tmp_path):
    """Its spelling is kept, an entry named like a missing value too."""
    path = tmp_path / "trace.csv"
    path.write_text("offset_ms,user_id,emoji_type\n0,u,❤\n7,u,NA\n", encoding="utf-8")
    assert representatives.recorded(path).to_numpy().tolist() == [[0, "❤"], [7, "NA"]]


def test_errors_by_hand():
    """Each figure of a load small enough to compute on paper: 52 reactions in 7 cells."""
    found = by_policy(SMALL)
    assert [found[policy]["representatives"] for policy in ("ceil", "floor", "carry")] == [7, 1, 5]
    assert [found[policy]["per_cell"] for policy in ("ceil", "floor")] == pytest.approx([18 / 52, 42 / 52])
    # 7 carried, 14 shown as 10, 4+7 as 10, 1+7 as none, 8+7 as 10, 5+7 as 10: 7, 3, 3, 7, 3, 3 off.
    assert found["carry"]["per_cell"] == pytest.approx(26 / 52)
    assert [found[policy]["in_total"] for policy in ("ceil", "floor", "carry")] == pytest.approx(
        [18 / 52, 42 / 52, 2 / 52]
    )
    assert [found[policy]["bias"] for policy in ("ceil", "floor", "carry")] == pytest.approx(
        [18 / 52, -42 / 52, -2 / 52]
    )
    assert found["ceil"]["per_cell_bound"] == found["ceil"]["in_total_bound"] == pytest.approx(63 / 52)
    assert found["carry"]["in_total_bound"] == pytest.approx(18 / 52)
    assert found["floor"]["hidden_cells"] == pytest.approx(6 / 7)
    assert [found[policy]["hidden_types"] for policy in ("ceil", "floor", "carry")] == [0, 0.5, 0]
    assert found["floor"]["tv_distance"] == pytest.approx(42 / 52)
    assert found["carry"]["tv_distance"] == pytest.approx(42 / 52 - 4 / 5)
    assert by_policy(SMALL, group_size=100)["floor"]["tv_distance"] == 1, "nothing is shown"


@given(COUNTS, st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_no_policy_is_over_its_bounds(counts, group_size):
    """For any counts, each error is within its bound."""
    for figures in by_policy(counts, group_size=group_size).values():
        assert figures["over_bound"] == 0
        if len(counts):
            assert figures["per_cell"] <= figures["per_cell_bound"] + 1e-9
            assert figures["in_total"] <= figures["in_total_bound"] + 1e-9
            assert abs(figures["bias"]) <= figures["in_total"] + 1e-9 <= figures["per_cell"] + 2e-9


def test_a_policy_that_breaks_its_bounds_is_counted(monkeypatch):
    """Were the arithmetic wrong, cells and types over the bounds would say so."""
    right = representatives.shown

    def one_more(counts, **how):
        cells = right(counts, **how)
        return cells.assign(representatives=cells["representatives"] + 1)

    monkeypatch.setattr(representatives, "shown", one_more)
    assert by_policy(SMALL)["ceil"]["over_bound"] == 7 + 2


def test_nothing_counted_is_nothing_measured():
    """Without counts the errors are not numbers, and no bound is broken."""
    for figures in by_policy(EMPTY).values():
        assert math.isnan(figures["per_cell"])
        assert figures["over_bound"] == figures["counted"] == 0
    assert representatives_figures.findings(representatives.errors(EMPTY, **HOW), "It", 10) == ["It counts nothing."]
    assert "Nothing was counted" in representatives_figures.course_figure(representatives.course(EMPTY, **HOW), 6.0)[0]
    assert "Nothing was counted" in representatives_figures.error_figure(representatives.sweep({1.0: EMPTY}, **HOW))[0]


def test_a_generated_load_has_its_rate_and_its_seed():
    """As many reactions as the rate says, give or take four standard deviations, and the same for the same seed."""
    counts = representatives.generated(20.0, trigger_s=6.0, windows=50, seed=4)
    assert abs(counts["count"].sum() - 6000) < 4 * math.sqrt(6000)
    assert counts.equals(representatives.generated(20.0, trigger_s=6.0, windows=50, seed=4))
    assert not counts.equals(representatives.generated(20.0, trigger_s=6.0, windows=50, seed=5))
    assert counts["window"].nunique() in (50, 51)


@pytest.fixture(scope="module")
def sweep():
    """Errors from sparse to dense."""
    loads = {rate: representatives.generated(rate, trigger_s=6.0, windows=30, seed=2) for rate in (1.0, 20.0, 300.0)}
    return representatives.sweep(loads, **HOW)


def test_carry_is_closest_in_total_and_ceil_hides_nothing(sweep):
    """What the bounds promise shows at every density, and the error falls as traffic grows."""
    for _, rows in sweep.groupby("rate_per_s"):
        assert rows.loc[rows["in_total"].idxmin(), "policy"] == "carry"
        assert rows.loc[rows["hidden_cells"] == 0, "policy"].iloc[0] == "ceil"
    for _, rows in sweep.groupby("policy"):
        assert rows.sort_values("mean_count")["in_total"].is_monotonic_decreasing


def test_figures_name_every_policy_and_are_the_same_again(sweep):
    """Each figure is well-formed, self-contained SVG with every policy in words, and repeatable."""
    course = representatives.course(SMALL, **HOW)
    for drawing in (
        lambda: representatives_figures.error_figure(sweep),
        lambda: representatives_figures.course_figure(course, 6.0),
    ):
        text, data = drawing()
        ET.fromstring(text)
        assert all(policy in text for policy in POLICIES)
        assert "prefers-color-scheme:dark" in text
        assert len(data) > 0
        assert drawing()[0] == text
    assert course.groupby("policy")["ratio"].last()["carry"] == pytest.approx(50 / 52)


def test_findings_say_what_the_figures_say():
    """The sentences hold the counts, each policy's swarm, the closest policy, and that the bounds were kept."""
    errors = representatives.errors(SMALL, **HOW)
    text = " ".join(representatives_figures.findings(errors, "The load", 10))
    assert "The load has 52 reactions of two types, 7.4 of a type" in text
    assert "`ceil` shows seven representatives, a swarm 1.35 times the crowd" in text
    assert "`floor` shows one representative, a" in text
    assert "Closest to the crowd in the end is `carry`; `ceil` alone hides nothing" in text
    assert "every policy kept its bounds" in text
    errors.loc[errors["policy"] == "floor", "over_bound"] = 3
    assert "`floor` broke what it allows" in " ".join(representatives_figures.findings(errors, "The load", 10))
