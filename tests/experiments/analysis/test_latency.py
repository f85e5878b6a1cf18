"""Latency: exact against brute force, +inf for what never came, hops that add up."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import ledger
from experiments.analysis import hops, latency
from experiments.load.schedule import timestamp_of
from experiments.synthetic import run

RUN = run.make_run()
GRACE = {"grace_s": 2.0}


def analysed(frames):
    """Return ledger, receipts and end-to-end of a run's frames."""
    reactions = ledger.join(frames["plan"], frames["sent"], frames["topic"], frames["windows"])
    stay = {**GRACE, "last_ns": latency.last_counted_ns(reactions, frames["windows"])}
    due = latency.receipts(frames["windows"], frames["clients"], frames["deliveries"], **stay)
    return reactions, due, latency.end_to_end(reactions, due, frames["clients"], **stay)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=60), st.floats(0, 1))
def test_rank_quantile_is_numpys_inverted_cdf(values, q):
    """The quantile is the value of rank ceil(q n), as numpy's inverted_cdf has it."""
    q = round(q, 3)
    assert latency.rank_quantile(np.array(values), q) == np.quantile(values, q, method="inverted_cdf")


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 5)), min_size=1, max_size=40), st.floats(0, 1))
def test_weighted_quantile_is_that_of_repeated_values(pairs, q):
    """Weights mean what repeating the values means."""
    values, weights = (np.array(side) for side in zip(*pairs, strict=True))
    repeated = np.repeat(values, weights)
    seen = latency.weighted_quantile(values, weights, q)
    assert (math.isnan(seen) and not len(repeated)) or seen == latency.rank_quantile(repeated, q)


def test_end_to_end_equals_brute_force():
    """Bins of outer differences give each quantile of the written-out pairs, rounded up to 1 ms."""
    reactions, due, whole = analysed(RUN.frames)
    pairs_s = hops.journeys(reactions, due)["end_to_end"].to_numpy() / 1e9
    assert whole.histogram.samples == len(pairs_s)
    for q in (0, 0.01, 0.5, 0.9, 0.99, 1):
        exact = latency.rank_quantile(pairs_s, q)
        assert exact < whole.histogram.quantile_s(q) <= exact + 0.001 + 1e-9
    assert whole.windows["reactions"].sum() == whole.histogram.reactions


def test_latencies_are_the_true_ones():
    """What the instrument measures for the first client is what the synthetic run says happened."""
    reactions, due, _ = analysed(RUN.frames)
    pairs = hops.journeys(reactions, due)
    first = pairs[pairs["client_id"] == "client-000"].set_index("seq")["end_to_end"]
    truth = RUN.truth.set_index("seq")["end_to_end_ns"].loc[first.index]
    assert (first == truth).all()


def test_chunks_do_not_change_the_counts(monkeypatch):
    """Counting a window in many small pieces gives the same histogram."""
    before = analysed(RUN.frames)[2].histogram
    monkeypatch.setattr(latency, "_CELLS_AT_ONCE", 50)
    after = analysed(RUN.frames)[2].histogram
    assert (before.counts == after.counts).all()


@given(
    st.lists(st.integers(-20, 50), min_size=11, max_size=11),
    st.lists(st.integers(0, 10**9), min_size=0, max_size=8),
)
@settings(deadline=None)
def test_hops_telescope_exactly(steps, arrivals):
    """Whatever the stamps, negative steps included, a journey's hops add up to received - intended."""
    stamps = np.cumsum([10**18 + 7, *steps[1:]])
    reactions = pd.DataFrame(
        {
            "seq": [0],
            "status": pd.array([202], dtype="Int64"),
            "phase": ["measured"],
            "epoch": ["e"],
            "window": pd.array([1], dtype="Int64"),
            "partition": [0],
            "offset": [0],
            **{name: [stamps[i]] for i, name in enumerate(hops.STAMPS[:5])},
        }
    )
    received = [int(stamps[10]), *(int(stamps[9]) + late for late in arrivals)]
    due = pd.DataFrame(
        {
            "epoch": "e",
            "window": 1,
            "client_id": [f"c{i}" for i in range(len(received))],
            **{name: stamps[5 + i] for i, name in enumerate(hops.STAMPS[5:10])},
            "received_ns": received,
        }
    )
    pairs = hops.journeys(reactions, due)
    assert (pairs[list(hops.HOPS)].sum(axis=1) == pairs["end_to_end"]).all()
    assert (pairs["end_to_end"].to_numpy() == np.array(received) - stamps[0]).all()
    table = hops.hop_table(reactions, due)
    assert table["mean_ms"].sum() == pytest.approx(pairs["end_to_end"].mean() / 1e6, abs=1e-5)
    assert table.loc[0, "negative"] == (steps[1] < 0)


def test_hop_table_is_that_of_the_pairs():
    """Weighted hops have the quantiles and means of the written-out pairs."""
    reactions, due, _ = analysed(RUN.frames)
    pairs = hops.journeys(reactions, due)
    table = hops.hop_table(reactions, due).set_index("hop")
    for hop in hops.HOPS:
        assert table.loc[hop, "mean_ms"] == pytest.approx(pairs[hop].mean() / 1e6)
        for name, q in hops.QUANTILES.items():
            if not math.isnan(table.loc[hop, f"{name}_ms"]):
                exact = latency.rank_quantile(pairs[hop].to_numpy(), q) / 1e6
                assert table.loc[hop, f"{name}_ms"] == exact
    assert math.isnan(table.loc["micro_batch", "p99_ms"]), "seven windows carry no p99"


def test_undelivered_is_infinite():
    """A window that a client never got is +inf for all its reactions, and moves the quantiles."""
    deliveries = RUN.frames["deliveries"]
    lost = deliveries[(deliveries["client_id"] == "client-001") & (deliveries["window"] == 4)]
    _, _, whole = analysed(RUN.frames | {"deliveries": deliveries.drop(index=lost.index)})
    complete = analysed(RUN.frames)[2]
    in_window = complete.windows.set_index("window").loc[4, "reactions"]
    assert whole.histogram.undelivered == in_window
    assert whole.histogram.samples == complete.histogram.samples
    assert math.isinf(whole.histogram.quantile_s(1))
    assert math.isinf(whole.histogram.quantile_s(0.99))


def test_lost_reaction_is_infinite_for_every_client():
    """An accepted reaction in no window counts as +inf once per client that was there."""
    topic = RUN.frames["topic"]
    plan = RUN.frames["plan"]
    row = plan[plan["phase"] == "measured"].iloc[100]
    stamp = timestamp_of(row["t_intended_ns"])
    gone = topic[(topic["timestamp"] == stamp) & (topic["user_id"] == row["user_id"])].index
    _, _, whole = analysed(RUN.frames | {"topic": topic.drop(index=gone)})
    assert whole.histogram.undelivered == 6
    assert whole.histogram.samples == analysed(RUN.frames)[2].histogram.samples


@pytest.mark.parametrize("fault", ["refused", "not answered", "not sent"])
def test_reaction_that_was_not_accepted_is_infinite_for_every_client(fault):
    """Its sender knows of no screen that it reached, and it may not make the percentiles better by its absence."""
    sent, plan = RUN.frames["sent"], RUN.frames["plan"]
    seqs = plan.loc[plan["phase"] == "measured", "seq"].iloc[100:110]
    of_it = sent["seq"].isin(seqs)
    if fault == "not sent":
        sent = sent[~of_it]
    else:
        sent = sent.assign(status=sent["status"].mask(of_it, 503 if fault == "refused" else 0))
    _, _, whole = analysed(RUN.frames | {"sent": sent})
    assert whole.histogram.undelivered == 6 * len(seqs)
    assert whole.histogram.samples == analysed(RUN.frames)[2].histogram.samples
    assert math.isinf(whole.histogram.quantile_s(1))


def test_the_last_window_counts_although_its_clients_leave_at_once():
    """An audience that leaves when it has all it waited for is owed the last window too: no reaction is left out."""
    reactions, due, whole = analysed(RUN.frames)
    clients, windows = RUN.frames["clients"], RUN.frames["windows"]
    assert (clients["left_ns"] < windows["emitted_ns"].max() + 2 * 10**9).all()
    assert len(due) == len(clients) * windows["window"].nunique()
    assert whole.histogram.reactions == len(latency.measured(reactions))
    assert whole.histogram.samples == len(latency.measured(reactions)) * len(clients)


def test_last_window_is_not_due_to_a_client_that_left_before():
    """The wait for the last window is that of who stayed; the others are owed what was out for grace_s."""
    clients = RUN.frames["clients"]
    last_ns = int(RUN.frames["windows"]["emitted_ns"].max())
    clients = clients.assign(left_ns=[last_ns - 1, *[last_ns] * (len(clients) - 1)])
    _, due, _ = analysed(RUN.frames | {"clients": clients})
    of_last = due[due["emitted_ns"] == last_ns]
    assert set(of_last["client_id"]) == set(clients["client_id"][1:])


def test_a_window_is_due_only_to_connected_clients():
    """A client that came after a window, or left within the grace, is not owed it; one still there is."""
    clients = RUN.frames["clients"].assign(left_ns=pd.array([pd.NA] * len(RUN.frames["clients"]), dtype="Int64"))
    emitted = RUN.frames["windows"].set_index("window")["emitted_ns"]
    clients.loc[0, "joined_ns"] = emitted[3] + 1
    clients.loc[1, "left_ns"] = emitted[3] + 2 * 10**9 - 1
    due = latency.receipts(RUN.frames["windows"], clients, RUN.frames["deliveries"], **GRACE)
    owed = due.groupby("client_id")["window"].apply(set)
    everything = set(emitted.index)
    assert owed["client-000"] == {w for w in everything if w > 3}
    assert owed["client-001"] == {w for w in everything if w < 3}
    assert owed["client-002"] == everything


def test_negative_latencies_are_counted_not_dropped():
    """A receipt before the intended send is in the histogram and in its count of negatives."""
    early = RUN.frames["deliveries"].assign(received_ns=lambda frame: frame["received_ns"] - 4 * 10**9)
    whole = analysed(RUN.frames | {"deliveries": early})[2]
    assert whole.histogram.negative > 0
    assert whole.histogram.samples == analysed(RUN.frames)[2].histogram.samples
    assert whole.histogram.quantile_s(0) < 0


def test_merged_histograms_have_the_quantiles_of_all_pairs():
    """Merging adds the pairs, wherever the two histograms begin."""
    rng = np.random.default_rng(1)
    parts = [rng.integers(low, low + 900, 400) for low in (-200, 1500)]
    histograms = [latency.Histogram(int(p.min()), np.bincount(p - p.min()), 3, int((p < 0).sum()), 400) for p in parts]
    both = histograms[0].merged(histograms[1])
    values = np.concatenate([*parts, [10**9] * 6])
    assert both.samples == 806
    for q in (0.1, 0.5, 0.9):
        assert both.quantile_s(q) == (latency.rank_quantile(values, q) + 1) / 1000
    assert math.isinf(both.quantile_s(1))
    assert math.isnan(latency.EMPTY.quantile_s(0.5))


@pytest.mark.parametrize(("q", "enough"), [(0.5, 20), (0.9, 100), (0.95, 200), (0.99, 1_000), (0.999, 10_000)])
def test_a_percentile_needs_ten_samples_beyond_it(q, enough):
    """The rule of the protocol: p99.9 under 10,000 samples is not printed."""
    assert latency.printable(q, enough)
    assert not latency.printable(q, enough - 1)


@given(st.lists(st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 5)), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_quantiles_without_a_whole_sort_are_the_same(pairs):
    """Quantiles from the values of one coarse bin equal those of all values in order."""
    values, weights = np.array([*pairs, (0, 1)], dtype=np.int64).repeat(3000, axis=0).T
    qs = (0.01, 0.5, 0.99, 1.0)
    assert latency.weighted_quantiles(values, weights, qs) == [
        latency.weighted_quantile(values, weights, q) for q in qs
    ]


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=40), st.lists(st.integers(-(10**7), 10**9), min_size=1))
@settings(max_examples=30, deadline=None)
def test_counted_differences_are_those_of_all_pairs(sends, arrivals):
    """The histogram of a window equals that of every pair written out."""
    sent, arrived = np.array(sends, dtype=np.int64), np.array(arrivals, dtype=np.int64)
    found = latency._outer(sent, arrived, 0)
    pairs = np.subtract.outer(arrived, sent).ravel()
    bins, counts = np.unique(pairs // 10**6, return_counts=True)
    assert found.first_ms + np.flatnonzero(found.counts) == pytest.approx(bins)
    assert found.counts[found.counts > 0].tolist() == counts.tolist()
    assert found.negative == np.count_nonzero(pairs < 0)
