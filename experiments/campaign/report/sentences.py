"""The findings of a campaign in sentences, computed from its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from experiments.campaign.campaign_file import State
from experiments.campaign.report.estimates import Trend, believed, estimates, in_blocks, of_level, trend
from experiments.campaign.report.levels import Layout, phrase
from experiments.report.format import (
    NBSP,
    between,
    count,
    in_unit,
    left_out,
    listed,
    lower,
    ms_of,
    number,
    percent,
    rounded,
    spread,
    upper,
    whole,
)
from experiments.stats.bootstrap import FEWEST_RUNS
from experiments.stats.paired import ALPHA, effect, holm
from experiments.stats.usl import LACK_OF_FIT, Usl

TRENDS = {
    "e2e_excess_p50_s": "the median’s excess",
    "e2e_excess_p99_s": "the p99’s excess",
    "batch_p95_s": "micro-batch time",
}
_STEPS = {"trigger_s": "second of the interval", "flush_ms": "millisecond of the interval", "speed": "step of speed"}


def findings(
    state: State,
    plan: Layout,
    runs: pd.DataFrame,
    objectives: pd.DataFrame,
    capacity: Sequence[str] = (),
    throughput: Sequence[str] = (),
) -> list[str]:
    """Return the sentences of the first paragraph.

    `runs` is estimates.derived of all finished runs, `objectives` provenance.by_level. `capacity` are the sentences of
    a search and `throughput` those of a closed loop; they come first.
    """
    valid = believed(runs)
    sentences = [progress(state, runs)]
    if len(valid):
        sentences += [
            *capacity,
            *throughput,
            *_objectives(objectives, plan, searched=bool(capacity)),
            *_latency(valid, plan),
            *_growth(valid, plan, searched=bool(capacity)),
            counts(valid),
            *([] if capacity else _shown(valid, plan)),
        ]
    return sentences


def progress(state: State, runs: pd.DataFrame) -> str:
    """Return how far the campaign is, and how many of its runs are valid."""
    done, planned = len(runs), len(state.order)
    if not done:
        return f"None of the {count(planned, 'planned run')} is finished yet." if planned else "No run is finished yet."
    if state.ended:
        start = f"{count(done, 'run')} {'is' if done == 1 else 'are'} finished"
    elif state.searches:
        start = f"The search is not finished: {count(done, 'run')} {'is' if done == 1 else 'are'} finished so far"
    else:
        made = runs["index"].nunique()  # an invalid run is repeated
        start = f"{number(made)} of {number(planned)} planned runs {'is' if made == 1 else 'are'} finished so far"
    bad = int((~runs["valid"].astype(bool)).sum())
    if not bad:
        return upper(start) + (", and valid." if done == 1 else ", and all are valid.")
    unsteady = int(runs["unsteady"].astype(bool).sum())
    why = left_out(bad - unsteady, unsteady)
    if bad == done:
        return upper(start) + f", and none is valid ({why}): do not quote these figures."
    return upper(start) + f"; {why}, and left out of every figure."


def _objectives(rows: pd.DataFrame, plan: Layout, *, searched: bool) -> list[str]:
    if rows.empty:
        return []
    several = plan.levels["level"].isin(rows["level"]).sum() > 1
    missed = rows[~rows["passed"]]
    total = rows["key"].nunique()
    if missed.empty:
        return [f"{_all(total)} hold{'s' if total == 1 else ''}{' at every level' if several else ''}."]
    if searched:
        # A search ends by missing an objective: the sentences of the capacity name it.
        return []
    held = total - missed["key"].nunique()
    start = f"Of {number(total)} objectives {number(held) if held else 'none'} {'holds' if held == 1 else 'hold'}"
    parts = [_missed(of_key, rows, plan) for _, of_key in missed.groupby("key", sort=False)]
    return [f"{start}{' at every level' if several else ''}. Missed: {'; '.join(parts)}."]


def _missed(of_key: pd.DataFrame, rows: pd.DataFrame, plan: Layout) -> str:
    """Return a missed objective in words: at which levels, and by how much in the worst run."""
    judged = [level for level in plan.levels["level"] if level in set(rows["level"])]
    at = [level for level in judged if level in set(of_key["level"])]
    where = "at every level" if len(at) == len(judged) > 1 else f"with {listed([plan.words(level) for level in at])}"
    first = of_key.iloc[0]
    worst = of_key["worst"].min() if first["at_least"] else of_key["worst"].max()
    if math.isnan(worst):
        seen = "not measured in every run"
    else:
        bound = "at least" if first["at_least"] else "at most"
        seen = f"{in_unit(worst, first['unit'])} instead of {bound} {in_unit(first['limit'], first['unit'])}"
    return f"{lower(str(first['name']))} ({where + ': ' if len(judged) > 1 else ''}{seen})"


def _all(total: int) -> str:
    return "The one objective" if total == 1 else f"All {number(total)} objectives"


def _latency(valid: pd.DataFrame, plan: Layout) -> list[str]:
    rows = estimates(valid, plan.levels, ["e2e_excess_p50_s", "e2e_excess_p99_s"])
    main = rows[rows["level"] == plan.main].set_index("key")
    p50, p99 = main.loc["e2e_excess_p50_s"], main.loc["e2e_excess_p99_s"]
    if not p50["runs"]:
        return []
    start = f"With {plan.words(plan.main)}, median" if len(plan.levels) > 1 else "Median"
    text = f"{start} latency is {spread(p50)} above the floor that flush and trigger impose"
    if p99["runs"]:
        text += f", and its 99th percentile {spread(p99)}"
    runs = int(p50["runs"])
    if runs < FEWEST_RUNS:
        return [f"{text}; {count(runs, 'run')} {'is' if runs == 1 else 'are'} too few for an interval."]
    intervals = sum(math.isfinite(row["low"]) for row in (p50, p99))
    if not intervals:
        return [f"{text}; their windows are too few for an interval."]
    return [f"{text}. In brackets: 95{NBSP}% interval{'s' if intervals > 1 else ''} over {count(runs, 'run')}."]


def _growth(valid: pd.DataFrame, plan: Layout, *, searched: bool) -> list[str]:
    """Return how latency changes with the load (or another quantity), and which changes the runs do not support."""
    trends = [trend(valid, plan, key) for key in TRENDS]
    known = [each for each in trends if math.isfinite(each.slope)]
    infinite = [each for each in trends if each.infinite]
    ends = f"From {plan.words(plan.levels['level'].iloc[0])} to {plan.words(plan.levels['level'].iloc[-1])}"
    step = "each tenfold" if plan.log else f"each further {_STEPS.get(plan.factor, phrase(plan.factor, 1))}"
    supported = [_trend(each) for each in known if each.supported]
    others = [TRENDS[each.key] for each in known if not each.supported]
    if not supported and searched:
        return []
    sentences = []
    if supported:
        sentences = [f"{ends}, {listed(supported)} for {step}"]
        if others:
            sentences[0] += f"; the runs do not show a trend of {listed(others)}"
        sentences[0] += "."
    elif others:
        sentences = [f"{ends}, the runs do not show a trend of {listed(others)}."]
    if infinite:
        where = [
            f"{TRENDS[each.key]} (infinite in runs with {listed([plan.words(level) for level in each.infinite])})"
            for each in infinite
        ]
        sentences.append(f"No trend is given for {listed(where)}.")
    return sentences


def _trend(of_key: Trend) -> str:
    low, high = sorted((abs(of_key.low), abs(of_key.high)))
    by = f"{ms_of(abs(of_key.slope))} ({between(ms_of(low), ms_of(high), ms_of(high))})"
    return f"{TRENDS[of_key.key]} {'grows' if of_key.slope > 0 else 'falls'} by {by}"


def counts(valid: pd.DataFrame) -> str:
    """Return whether every reaction of the valid runs was counted, shown and delivered exactly once."""
    cells, due = int(valid["oracle_cells"].sum()), int(valid["deliveries_due"].sum())
    faults = [
        f"{count(int(valid[key].sum()), noun)} {verb} in {count(int((valid[key] > 0).sum()), 'run')}"
        for key, noun, verb in (
            ("lost", "reaction", "lost"),
            ("duplicated", "reaction", "counted more than once"),
            ("altered", "reaction", "altered"),
            ("deliveries_missing", "delivery", "missing"),
            ("deliveries_duplicate", "delivery", "doubled"),
        )
        if valid[key].sum()
    ]
    differing = cells - int(valid["oracle_equal"].sum())
    if differing:
        faults.append(f"{count(differing, 'count')} different from the recount from Kafka")
    if faults:
        return f"The counts have faults: {listed(faults)}."
    return (
        f"In all valid runs, each of the {whole(int(valid['accepted'].sum()))} accepted reactions was counted exactly "
        f"once, all {whole(cells)} counts agree with a recount from Kafka, and each of the {whole(due)} deliveries due "
        "arrived once."
    )


def _shown(valid: pd.DataFrame, plan: Layout) -> list[str]:
    """Return how far the representatives are from the counts, at the lowest and the highest level if those differ.

    The two levels differ if the runs say so after Holm's correction for all pairs of levels, as they were chosen from
    all.
    """
    rows = estimates(valid, plan.levels, ["representation_error"])
    rows = rows[rows["runs"] > 0]
    if rows.empty:
        return []
    by_error = sorted(rows.to_dict("records"), key=lambda row: float(row["median"]))
    least, most = by_error[0], by_error[-1]
    if not _apart(valid, [str(row["level"]) for row in by_error], "representation_error"):
        row = next((row for row in by_error if row["level"] == plan.main), least)
        text = f"Rounding to representatives moves the swarm {percent(row['median'])} off the counts"
        if len(by_error) == 1:
            return [text + "."]
        return [f"{text} with {plan.words(row['level'])}; the runs do not show a difference between levels."]
    moved = [percent(_median(of_level(valid, row["level"], "tv_distance"))) for row in (least, most)]
    return [
        f"Rounding to representatives moves the swarm {percent(least['median'])} off the counts with "
        f"{plan.words(least['level'])} and {percent(most['median'])} with {plan.words(most['level'])}; it shifts "
        f"{moved[0]} and {moved[1]} of the mix between types."
    ]


def _apart(valid: pd.DataFrame, levels: Sequence[str], key: str) -> bool:
    """Return whether the first and the last of `levels` differ in a figure block by block, corrected for all pairs."""
    pairs = list(combinations(levels, 2))
    p = [effect(*in_blocks(valid, a, valid, b, key)).p for a, b in pairs]
    corrected = dict(zip(pairs, holm(np.array(p, dtype=np.float64)), strict=True))
    return bool(len(levels) > 1 and corrected[levels[0], levels[-1]] < ALPHA)


def _median(values: Any) -> float:
    return float(pd.Series(values).median())


def warnings(state: State, runs: pd.DataFrame, plan: Layout) -> list[str]:
    """Return the limits of the statistics: levels with too few valid runs."""
    if runs.empty:
        return []
    if state.searches:
        return [
            "A search probes most loads only once: quote its capacity with the interval, not the figures of one load."
        ]
    have = believed(runs).groupby("level").size()
    few = [(level, int(have.get(level, 0))) for level in plan.levels["level"] if have.get(level, 0) < FEWEST_RUNS]
    if not few:
        return []
    every = len(few) == len(plan.levels) > 1 and len({n for _, n in few}) == 1
    parts = f"every level ({number(few[0][1])})"
    if not every:
        parts = listed([f"{plan.words(level)} ({number(n)})" for level, n in few])
    return [
        f"Levels with fewer than {number(FEWEST_RUNS)} valid runs: {parts}. They have no interval, and their medians "
        "may be chance."
    ]


def throughput(valid: pd.DataFrame, plan: Layout, law: Usl | None) -> list[str]:
    """Return the throughput of a closed loop's users, and the law fitted to it (None: no law could be fitted)."""
    rows = estimates(valid, plan.levels, ["accepted_per_s"])
    rows = rows[rows["runs"] > 0]
    if rows.empty:
        return []
    parts = [f"{rounded(row['median'])} with {plan.words(row['level'])}" for row in rows.to_dict("records")]
    first = f"Users who each wait for their answer achieve {parts[0].replace(' with', ' reactions/s with', 1)}"
    text = first + (f" and {parts[-1]}." if len(parts) > 1 else ".")
    if law is None:
        return [text]
    if law.lack_of_fit < LACK_OF_FIT:
        return [
            text,
            f"The runs do not follow the Universal Scalability Law (lack of fit, p = {law.lack_of_fit:.2g}), so that "
            "its parameters are not quoted.",
        ]
    low, high = law.intervals["sigma"]
    result = f"{percent(law.sigma)} of the work is serial ({between(percent(low), percent(high), percent(high))})"
    seen = plan.levels.loc[plan.levels["level"].isin(rows["level"]), "x"]
    if law.peak_n <= seen.max():
        result += f", and throughput is greatest at {rounded(law.peak_n)} users"
    if math.isnan(law.lack_of_fit):
        result += "; no level has two runs, so that whether the law fits is not known"
    return [text, f"By the Universal Scalability Law, {result}."]
