"""The excess: exact against every pair written out, and the worst window found."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import latency
from experiments.analysis.analyse import analyse
from experiments.analysis.floor import Waits, earliest_triggers
from experiments.ledger import WINDOW_KEY
from experiments.synthetic import run
from experiments.units import NS_PER_S

RUN = run.make_run(clients=4)
PLAN, WINDOWS, DELIVERIES = (RUN.frames[name] for name in ("plan", "windows", "deliveries"))
WAITS = Waits(6, 0.5, "aligned", 0.05)
FIFTH = int(WINDOWS["window"].iloc[5])


def examined(**frames):
    """Return the analysis of the synthetic run with these frames changed."""
    return analyse(RUN.frames | frames, RUN.parameters, RUN.manifest)


def pairs_of(result, deliveries=DELIVERIES):
    """Return the excess of each pair of a measured reaction and a delivery of its window, written out, seconds."""
    rows = result.reactions[result.reactions["phase"] == "measured"]
    rows = rows.assign(
        due_ns=earliest_triggers(rows["t_intended_ns"].to_numpy(), WAITS, np.zeros(0, dtype=np.int64)),
        window=rows["window"].astype("int64"),
    )
    pairs = rows[[*WINDOW_KEY, "due_ns"]].merge(deliveries[[*WINDOW_KEY, "received_ns"]], on=WINDOW_KEY)
    return ((pairs["received_ns"] - pairs["due_ns"]) / NS_PER_S).to_numpy()


def late(window, by_s):
    """Return the deliveries with one window `by_s` later."""
    shift = (DELIVERIES["window"] == window) * round(by_s * NS_PER_S)
    return DELIVERIES.assign(received_ns=DELIVERIES["received_ns"] + shift)


def test_quantiles_are_those_of_every_pair_written_out():
    """To the nanosecond, without a bin."""
    result = examined()
    values = pairs_of(result)
    for q in (0.0, 0.1, 0.5, 0.9, 0.99, 1.0):
        assert result.excess.quantile_s(q) == latency.rank_quantile(values, q)
    assert int(result.excess.weights.sum()) == len(values) == result.summary["samples"]
    assert result.excess.reactions == result.summary["reactions_measured"]
    assert result.excess.negative == 0


def test_histogram_has_the_same_quantiles_to_its_millisecond():
    """What a campaign merges is the excess, in bins."""
    result = examined()
    histogram = result.excess.histogram()
    for q in (0.1, 0.5, 0.99):
        assert 0 <= histogram.quantile_s(q) - result.excess.quantile_s(q) <= 0.001


def test_one_late_window_moves_the_worst_window_and_not_the_median():
    """A window of seven that is 1.2 s late: the figure that a percentile of all reactions hides."""
    clean, result = examined(), examined(deliveries=late(FIFTH, 1.2))
    own = pairs_of(clean)
    assert result.summary["excess_worst_window_s"] - clean.summary["excess_worst_window_s"] > 1.1
    row = result.excess.due["p50_s"].idxmax()
    assert result.excess.due.loc[row, "p50_s"] == pytest.approx(clean.excess.due.loc[row, "p50_s"] + 1.2, abs=1e-9)
    assert abs(result.summary["e2e_excess_p50_s"] - np.median(own)) < 0.03
    assert result.summary["e2e_excess_p90_s"] > 1.2


def test_a_window_that_was_never_emitted_is_infinitely_late():
    """Its reactions are in no window; all of those due at one trigger never arrived."""
    result = examined(windows=WINDOWS[WINDOWS["window"] != FIFTH], deliveries=DELIVERIES[DELIVERIES["window"] != FIFTH])
    assert result.summary["excess_worst_window_s"] == math.inf
    assert result.summary["e2e_excess_p99_s"] == math.inf
    assert result.summary["e2e_excess_p50_s"] < 1
    assert int(result.excess.due["undelivered"].sum()) == result.summary["undelivered"] > 0


def test_one_lost_reaction_does_not_make_its_window_the_worst():
    """The worst window is about windows: a reaction that is lost alone counts in the percentiles."""
    lost = RUN.frames["topic"].index[RUN.frames["topic"]["emoji_type"].notna()][700]
    result = examined(topic=RUN.frames["topic"].drop(index=lost))
    assert result.excess.quantile_s(1) == math.inf
    assert result.summary["excess_worst_window_s"] < 1


def test_a_client_that_missed_a_window_is_infinitely_late():
    """One delivery of four: the window's median is as before, and its pairs are in the percentiles."""
    gone = DELIVERIES[(DELIVERIES["window"] == FIFTH) & (DELIVERIES["client_id"] == "client-000")].index
    result = examined(deliveries=DELIVERIES.drop(index=gone))
    assert result.summary["e2e_excess_p99_s"] == math.inf
    assert result.summary["excess_worst_window_s"] < 1


def test_only_whole_windows_count_for_representation():
    """The load ends within its last window: that one shows less than a window's counts and is left out."""
    result = examined()
    counting = result.reactions.loc[result.reactions["phase"] == "measured", "window"].astype("int64")
    assert result.summary["windows_measured"] == counting.nunique()
    assert sorted(result.excess.whole_windows["window"]) == sorted(set(counting) - {counting.max()})
    assert set(result.cells["window"]) == set(result.excess.whole_windows["window"])
    ends = result.excess.due.sort_values("due_ns")["whole"]
    assert list(ends) == [True] * (len(ends) - 1) + [False]


def test_an_empty_ledger_has_no_excess():
    """No reaction, no figure, and no error."""
    result = examined(**{name: frame.iloc[:0] for name, frame in RUN.frames.items()})
    assert math.isnan(result.excess.quantile_s(0.5))
    assert math.isnan(result.excess.worst_s)
    assert result.excess.due.empty
    assert isinstance(result.excess.due, pd.DataFrame)
