"""Whether the clocks can be believed: no stamp lies before its cause, and no clock steps, drifts or differs.

That the hops of a journey add up proves nothing: they are differences of neighbouring stamps. A wrong clock shows in
the order of cause and effect, and in the grid of Spark's triggers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.analysis.hops import STAMPS
from experiments.analysis.validity import Finding
from experiments.ledger import WINDOW_KEY, integers, unique_windows, window_codes
from experiments.units import NS_PER_MS, NS_PER_S

CLOCK_STEP_MS = 5.0
CLOCK_GAP_S = 10.0
# Time synchronisation slews by at most 0.5 ms per second. A latency of 6 s is then wrong by 3 ms.
CLOCK_DRIFT_MS_PER_S = 1.0
# Over a stretch of this length, and over the whole run: a clock that is slewed forth and back ends where it began.
DRIFT_OVER_S = 10.0
# Kafka stamps an append in whole milliseconds.
APPEND_RESOLUTION_MS = 1.0
BROKER_OFFSET_MS = 5.0
# Kafka's clock is told by the quickest append of so many seconds, and of so many windows: at 11,000 reactions per
# second every append of a second often took 7 to 24 ms, because batches were large, and hardly ever those of 5 s.
BROKER_OVER_S = 15.0
BROKER_WINDOWS = 3
# Spark's own timestamp of a trigger is in whole milliseconds.
TRIGGER_RESOLUTION_MS = 2.0
# A micro-batch ends when Kafka has its window: this long after the emission at most.
FLUSH_S = 2.0
_APPENDED = STAMPS.index("appended_ns")
_OF_WINDOW = STAMPS.index("trigger_ns")


def clock(samples: Sequence[tuple[int, int]], span_ns: tuple[int, int]) -> Finding:
    """Return whether the wall clock ran like the monotonic one, during a load from `span_ns` [0] to [1].

    `samples` are (time_ns, monotonic_ns) pairs read as one, over the whole run, in order. A step is a change of their
    difference by more than CLOCK_STEP_MS from one sample to the next, a drift one that goes on: over the whole run, or
    over DRIFT_OVER_S of it.
    """
    if len(samples) < 2:
        return Finding(
            {},
            [f"The clock was not watched ({len(samples)} samples): a step of it would not be noticed. Run again."],
        )
    pairs = np.asarray(samples, dtype=np.int64)
    difference_ms = (pairs[:, 0] - pairs[:, 1] - (pairs[0, 0] - pairs[0, 1])) / NS_PER_MS
    spent_s = max((pairs[-1, 1] - pairs[0, 1]) / NS_PER_S, 1e-9)
    drift = float(difference_ms[-1] / spent_s)
    figures = {"clock_drift_ms_per_s": drift}
    steps_ms = np.diff(difference_ms)
    worst = int(np.abs(steps_ms).argmax())
    unwatched_s = max(float(np.diff(pairs[:, 1]).max()), span_ns[1] - span_ns[0] - spent_s * NS_PER_S) / NS_PER_S
    if unwatched_s > CLOCK_GAP_S:
        return Finding(
            figures,
            [
                f"The clock was not watched for {unwatched_s:.0f} s of the run (at most {CLOCK_GAP_S:g} s): a step of "
                "it would not be noticed. Run again."
            ],
        )
    if abs(steps_ms[worst]) > CLOCK_STEP_MS:
        into_s = (pairs[worst + 1, 1] - pairs[0, 1]) / NS_PER_S
        return Finding(
            figures,
            [
                f"The clock stepped by {steps_ms[worst]:+.1f} ms, {into_s:.1f} s into the run (at most "
                f"{CLOCK_STEP_MS:.0f} ms): keep time synchronisation from stepping it, and run again."
            ],
        )
    first, last = _fastest(pairs[:, 1], difference_ms)
    for begin, end in ((0, len(pairs) - 1), (first, last)):
        by_ms = float(difference_ms[end] - difference_ms[begin])
        in_s = max((pairs[end, 1] - pairs[begin, 1]) / NS_PER_S, 1e-9)
        if abs(by_ms / in_s) > CLOCK_DRIFT_MS_PER_S:
            return Finding(
                figures,
                [
                    f"The clock drifted by {by_ms:+.1f} ms in {in_s:.0f} s, or {by_ms / in_s:+.2f} ms per second "
                    f"(at most {CLOCK_DRIFT_MS_PER_S:g}): find out what slews it, and run again."
                ],
            )
    return Finding(figures, [])


def _fastest(monotonic_ns: NDArray[np.int64], difference_ms: NDArray[np.float64]) -> tuple[int, int]:
    """Return the samples between which the clock drifted fastest, at least DRIFT_OVER_S apart; the ends if none are."""
    first = np.arange(len(monotonic_ns))
    last = np.searchsorted(monotonic_ns, monotonic_ns + round(DRIFT_OVER_S * NS_PER_S))
    first, last = first[last < len(monotonic_ns)], last[last < len(monotonic_ns)]
    if not len(first):
        return 0, len(monotonic_ns) - 1
    rates = (difference_ms[last] - difference_ms[first]) / (monotonic_ns[last] - monotonic_ns[first])
    worst = int(np.abs(rates).argmax())
    return int(first[worst]), int(last[worst])


def broker(reactions: pd.DataFrame, trigger_s: float) -> Finding:
    """Return whether Kafka's clock agrees with ours over the whole run.

    An append takes at least no time, and now and then one takes little: the least (appended - flushed) of the windows
    within BROKER_OVER_S is the difference of the clocks, plus that little.
    """
    codes, windows = window_codes(reactions)
    (flushed, no_flush), (appended, no_append) = integers(reactions["flushed_ns"]), integers(reactions["appended_ns"])
    known = (codes >= 0) & ~no_flush & ~no_append
    nothing = np.iinfo(np.int64).max
    least_ns = np.full(len(windows), nothing)
    np.minimum.at(least_ns, codes[known], (appended - flushed)[known])
    quickest = windows.assign(least_ms=least_ns / NS_PER_MS)[least_ns < nothing].sort_values(WINDOW_KEY)
    least = quickest["least_ms"]
    if least.empty:
        return Finding({}, [])
    low, high = float(least.min()), float(least.max())
    together = min(max(BROKER_WINDOWS, math.ceil(BROKER_OVER_S / trigger_s)), len(least))
    worst = float(least.rolling(together).min().max())
    figures = {"append_least_low_ms": low, "append_least_high_ms": high}
    slack = BROKER_OFFSET_MS + APPEND_RESOLUTION_MS
    if -slack <= low and worst <= slack:
        return Finding(figures, [])
    return Finding(
        figures,
        [
            f"Kafka's clock differs from ours: the quickest append of a window took {low:,.1f} ms or more, and that of "
            f"{together} windows {worst:,.1f} ms or more once (at most {slack:.0f} ms either way). Run Kafka on this "
            "machine's clock, or synchronise it."
        ],
    )


def causes(reactions: pd.DataFrame, due: pd.DataFrame) -> Finding:
    """Return whether each stamp of a journey lies at or after its cause.

    A record that Spark read after the trigger, but before it asked for the topic's end, is in that window: an append is
    compared with the window's emission. Kafka's stamps may be early by their resolution.
    """
    codes, windows = window_codes(reactions)
    found = []
    for first, then in pairwise(STAMPS[: _APPENDED + 1]):
        slack = APPEND_RESOLUTION_MS if then == "appended_ns" else 0.0
        found.append((first, then, _early(reactions[first], reactions[then], slack, codes >= 0)))
    emitted = due.drop_duplicates(WINDOW_KEY)[[*WINDOW_KEY, "emitted_ns"]]
    of_window = windows.merge(emitted, on=WINDOW_KEY, how="left")["emitted_ns"].astype("Int64")
    # The last entry is that of a reaction without a window.
    emissions = pd.Series(pd.array([*of_window, pd.NA], dtype="Int64")[codes])
    found.append(("appended_ns", "emitted_ns", _early(reactions["appended_ns"], emissions, 0.0)))
    del emissions
    for first, then in pairwise(STAMPS[_OF_WINDOW:]):
        found.append((first, then, _early(due[first], due[then], 0.0)))
    wrong = [(first, then, early) for first, then, early in found if len(early)]
    figures = {"before_their_cause": float(sum(len(early) for _, _, early in wrong))}
    if not wrong:
        return Finding(figures, [])
    first, then, early = max(wrong, key=lambda each: float(each[2].max()))
    return Finding(
        figures,
        [
            f"Effects lie before their causes: {int(figures['before_their_cause']):,} stamps, such as {then} "
            f"{float(early.max()):,.1f} ms before {first}. A clock or a stamp is wrong: see the stage that writes it."
        ],
    )


def triggers(windows: pd.DataFrame, progress: pd.DataFrame, trigger_s: float) -> Finding:
    """Return whether each window names a trigger that can have been its own.

    A trigger is on the grid of `trigger_s` since the epoch, unless the micro-batch before it was still running at that
    moment: then it is when that one ended. And Spark did not start the batch before it.
    """
    known = unique_windows(windows).sort_values(["epoch", "window"], kind="stable")
    interval_ns = round(trigger_s * NS_PER_S)
    named, emitted, numbers = (known[name].to_numpy(dtype=np.int64) for name in ("trigger_ns", "emitted_ns", "window"))
    grid = named // interval_ns * interval_ns
    follows = np.zeros(len(known), dtype=bool)
    follows[1:] = (np.diff(numbers) == 1) & (known["epoch"].to_numpy()[1:] == known["epoch"].to_numpy()[:-1])
    emitted_before, named_before = np.roll(emitted, 1), np.roll(named, 1)
    # Of a window without one before it (the run's first), nothing is known of that one's end.
    since_emitted_s = (named - emitted_before) / NS_PER_S
    overrun = (grid > named_before) & (since_emitted_s >= 0) & (since_emitted_s <= FLUSH_S)
    wrong = follows & (((named != grid) & ~overrun) | (named <= named_before))
    wrong |= _contradicted(known, progress)
    figures = {"triggers_wrong": float(np.count_nonzero(wrong))}
    if not wrong.any():
        return Finding(figures, [])
    others = np.count_nonzero(wrong) - 1
    return Finding(
        figures,
        [
            f"Triggers are wrong: that of window {numbers[wrong][0]}{f' and of {others} more' if others else ''} is "
            f"not on the grid of {trigger_s:g} s, or Spark's progress contradicts it. See Spark's log and its clock."
        ],
    )


def _contradicted(known: pd.DataFrame, progress: pd.DataFrame) -> NDArray[np.bool_]:
    """Return for which windows Spark says that it started the batch before the trigger, or after the window."""
    started = progress[progress["num_input_rows"] > 0][["batch_id", "trigger_start_ns"]]
    pairs = known.reset_index()[["index", "window", "trigger_ns", "emitted_ns"]].merge(
        started, left_on="window", right_on="batch_id", how="inner"
    )
    slack_ns = round(TRIGGER_RESOLUTION_MS * NS_PER_MS)
    # Batch numbers repeat after a new checkpoint: one of the reports has to fit.
    fits = (pairs["trigger_start_ns"] + slack_ns >= pairs["trigger_ns"]) & (
        pairs["trigger_start_ns"] <= pairs["emitted_ns"]
    )
    fitting = fits.groupby(pairs["index"]).any()
    contradicted = set(fitting.index[~fitting])
    return known.index.isin(contradicted)


def _early(
    cause: pd.Series, effect: pd.Series, slack_ms: float, among: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return by how many ms effects lie before their causes, of those `among` them over `slack_ms` before."""
    (causes_ns, no_cause), (effects_ns, no_effect) = integers(cause), integers(effect)
    # A first, whole comparison: of millions of stamps hardly any are early.
    early = (causes_ns > effects_ns) & ~no_cause & ~no_effect
    if among is not None:
        early &= among
    early_ms = (causes_ns[early] - effects_ns[early]) / NS_PER_MS
    return np.asarray(early_ms[early_ms > slack_ms], dtype=np.float64)
