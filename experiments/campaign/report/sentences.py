"""A campaign in sentences: what a person reads first, computed from its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from experiments.campaign.report.differences import ALPHA, holm, p_value
from experiments.campaign.report.levels import FEW_RUNS, Layout, Trend, believed, estimates, of_level, phrase, trend
from experiments.report.format import between, percent, slo_figure, spread
from experiments.report.sentences import NBSP, count, number
from experiments.stats.bootstrap import ENOUGH_RUNS, coverage
from experiments.stats.usl import Usl

TRENDS = {
    "e2e_excess_p50_s": "the median’s excess",
    "e2e_excess_p99_s": "the p99’s excess",
    "batch_p95_s": "micro-batch time",
}
_STEPS = {"trigger_s": "second of the interval", "flush_ms": "millisecond of the interval", "speed": "step of speed"}


def findings(
    about: Mapping[str, Any],
    plan: Layout,
    runs: pd.DataFrame,
    objectives: pd.DataFrame,
    capacity: Sequence[str] = (),
    throughput: Sequence[str] = (),
) -> list[str]:
    """Return the sentences of the first paragraph.

    `runs` is campaign_levels.derived of all finished runs, `objectives` campaign_facts.by_level. `capacity` are
    the sentences of a search and `throughput` those of a closed loop, which come first of the results.
    """
    valid = believed(runs)
    sentences = [progress(about, runs)]
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


def progress(about: Mapping[str, Any], runs: pd.DataFrame) -> str:
    """Return how far the campaign is, and how many of its runs may be believed."""
    done, planned = len(runs), len(about["order"])
    searching = bool(about["design"].get("search"))
    if not done:
        return f"None of the {count(planned, 'planned run')} is finished yet." if planned else "No run is finished yet."
    if about.get("ended"):
        start = f"{count(done, 'run')} {'is' if done == 1 else 'are'} finished"
    elif searching:
        start = f"The search goes on: {count(done, 'run')} {'is' if done == 1 else 'are'} finished so far"
    else:
        made = runs["index"].nunique()  # an invalid run is made again
        start = f"{number(made)} of {number(planned)} planned runs {'is' if made == 1 else 'are'} finished so far"
    bad = int((~runs["valid"].astype(bool)).sum())
    if not bad:
        return _upper(start) + (", and valid." if done == 1 else ", all of them valid.")
    if bad == done:
        return _upper(start) + ", and none is valid: nothing here may be quoted."
    return _upper(start) + f"; {number(bad)} {'is' if bad == 1 else 'are'} invalid and left out of every figure."


def _objectives(rows: pd.DataFrame, plan: Layout, *, searched: bool) -> list[str]:
    if rows.empty:
        return []
    several = plan.levels["level"].isin(rows["level"]).sum() > 1
    missed = rows[~rows["passed"]]
    total = rows["key"].nunique()
    if missed.empty:
        return [f"{_all(total)} hold{'s' if total == 1 else ''}{' at every level' if several else ''}."]
    if searched:
        # Missing an objective is how a search ends: the capacity's own sentences name it.
        return []
    held = total - missed["key"].nunique()
    start = f"Of {number(total)} objectives {number(held) if held else 'none'} {'holds' if held == 1 else 'hold'}"
    told = [_missed(of_key, rows, plan) for _, of_key in missed.groupby("key", sort=False)]
    return [f"{start}{' at every level' if several else ''}. Missed: {'; '.join(told)}."]


def _missed(of_key: pd.DataFrame, rows: pd.DataFrame, plan: Layout) -> str:
    """Say of a missed objective where, and how far in the worst run."""
    judged = [level for level in plan.levels["level"] if level in set(rows["level"])]
    at = [level for level in judged if level in set(of_key["level"])]
    where = "at every level" if len(at) == len(judged) > 1 else f"with {_list([plan.words(level) for level in at])}"
    first = of_key.iloc[0]
    worst = of_key["worst"].min() if first["at_least"] else of_key["worst"].max()
    if math.isnan(worst):
        seen = "not measured in every run"
    else:
        least = "at least " if first["at_least"] else ""
        seen = f"{slo_figure(worst, first['unit'])}, {least}{slo_figure(first['limit'], first['unit'])} allowed"
    return f"{_lower(str(first['name']))} ({where + ': ' if len(judged) > 1 else ''}{seen})"


def _all(total: int) -> str:
    return "The one objective" if total == 1 else f"All {number(total)} objectives"


def _latency(valid: pd.DataFrame, plan: Layout) -> list[str]:
    rows = estimates(valid, plan.levels, ["e2e_excess_p50_s", "e2e_excess_p99_s"])
    ours = rows[(rows["level"] == plan.main)].set_index("key")
    p50, p99 = ours.loc["e2e_excess_p50_s"], ours.loc["e2e_excess_p99_s"]
    if not p50["runs"]:
        return []
    start = f"With {plan.words(plan.main)} half" if len(plan.levels) > 1 else "Half"
    text = f"{start} of the reactions are on screen {spread(p50)} later than flush and trigger impose"
    if p99["runs"]:
        text += f", 99 in 100 {spread(p99)}"
    runs = int(p50["runs"])
    if runs < FEW_RUNS:
        return [f"{text}; {count(runs, 'run')} carr{'ies' if runs == 1 else 'y'} no interval."]
    if runs < ENOUGH_RUNS:
        return [
            f"{text}; in brackets, intervals over {count(runs, 'run')}, too few for 95{NBSP}%: they hold the true "
            f"median in {percent(coverage(runs))} of cases."
        ]
    return [f"{text}; in brackets, 95{NBSP}% intervals over {count(runs, 'run')}."]


def _growth(valid: pd.DataFrame, plan: Layout, *, searched: bool) -> list[str]:
    """What the load (or another quantity) does to latency, and what the runs do not say."""
    trends = [trend(valid, plan, key) for key in TRENDS]
    known = [one for one in trends if math.isfinite(one.slope)]
    endless = [one for one in trends if one.infinite]
    ends = f"From {plan.words(plan.levels['level'].iloc[0])} to {plan.words(plan.levels['level'].iloc[-1])}"
    step = "each tenfold" if plan.log else f"each further {_STEPS.get(plan.factor, phrase(plan.factor, 1))}"
    told = [_told(one) for one in known if one.supported]
    silent = [TRENDS[one.key] for one in known if not one.supported]
    if not told and searched:
        return []
    said = []
    if told:
        said = [f"{ends} {_list(told)} for {step}"]
        if silent:
            said[0] += f"; that {_list(silent)} change{'s' if len(silent) == 1 else ''} is not supported"
        said[0] += "."
    elif silent:
        said = [f"{ends} no trend of {_list(silent)} stands out from the scatter of the runs."]
    if endless:
        where = [
            f"{TRENDS[one.key]} (infinite in runs with {_list([plan.words(level) for level in one.infinite])})"
            for one in endless
        ]
        said.append(f"No trend is given of {_list(where)}.")
    return said


def _told(one: Trend) -> str:
    low, high = sorted((abs(one.low), abs(one.high)))
    by = f"{_ms(abs(one.slope))} ({between(_ms(low), _ms(high), _ms(high))})"
    return f"{TRENDS[one.key]} {'grows' if one.slope > 0 else 'falls'} by {by}"


def _ms(value_s: float) -> str:
    ms = value_s * 1000
    return f"{ms:.2g}{NBSP}ms" if ms < 9.95 else f"{ms:,.0f}{NBSP}ms"


def counts(valid: pd.DataFrame) -> str:
    """Return whether every reaction of the valid runs was counted, shown and delivered exactly once."""
    cells, due = int(valid["oracle_cells"].sum()), int(valid["deliveries_due"].sum())
    faults = [
        f"{_several(int(valid[key].sum()), noun)} {verb} in {count(int((valid[key] > 0).sum()), 'run')}"
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
        faults.append(f"{count(differing, 'count')} unlike the recount from Kafka")
    if faults:
        return f"The counts are not all right: {_list(faults)}."
    return (
        f"In all valid runs every one of {int(valid['accepted'].sum()):,} accepted reactions was counted exactly once, "
        f"all {cells:,} counts agree with a recount from Kafka, and each of {due:,} deliveries due arrived once."
    )


def _shown(valid: pd.DataFrame, plan: Layout) -> list[str]:
    """How far what people see is from what was counted, and with which levels least and most if runs tell them apart.

    They do where the two differ after Holm's correction for all pairs of levels: the two ends were picked from them.
    """
    rows = estimates(valid, plan.levels, ["representation_error"])
    rows = rows[rows["runs"] > 0]
    if rows.empty:
        return []
    by_error = sorted(rows.to_dict("records"), key=lambda row: float(row["median"]))
    least, most = by_error[0], by_error[-1]
    if not _apart(valid, [str(row["level"]) for row in by_error], "representation_error"):
        row = next((row for row in by_error if row["level"] == plan.main), least)
        text = f"What is shown is {percent(row['median'])} off the counts"
        if len(by_error) == 1:
            return [text + ": the price of rounding to representatives."]
        return [f"{text} with {plan.words(row['level'])}; the runs do not tell the levels apart."]
    moved = [percent(_median(of_level(valid, row["level"], "tv_distance"))) for row in (least, most)]
    return [
        f"Rounding to representatives puts what is shown {percent(least['median'])} off the counts with "
        f"{plan.words(least['level'])} and {percent(most['median'])} with {plan.words(most['level'])}, and moves "
        f"{moved[0]} and {moved[1]} of the mix between types."
    ]


def _apart(valid: pd.DataFrame, levels: Sequence[str], key: str) -> bool:
    """Whether the first and the last of `levels` differ in a figure, as one of all pairs that might have."""
    values = {level: of_level(valid, level, key) for level in levels}
    pairs = list(combinations(levels, 2))
    p = [
        p_value(values[a], values[b]) if min(len(values[a]), len(values[b])) >= FEW_RUNS else math.nan for a, b in pairs
    ]
    corrected = dict(zip(pairs, holm(np.array(p, dtype=np.float64)), strict=True))
    return bool(len(levels) > 1 and corrected[levels[0], levels[-1]] < ALPHA)


def _median(values: Any) -> float:
    return float(pd.Series(values).median())


def warnings(about: Mapping[str, Any], runs: pd.DataFrame, plan: Layout) -> list[str]:
    """Return what the statistics do not carry: levels with too few valid runs."""
    if runs.empty:
        return []
    if about["design"].get("search"):
        return ["A search probes most loads once or twice: only its interval is repeated, not the figures of a load."]
    have = believed(runs).groupby("level").size()
    few = [(level, int(have.get(level, 0))) for level in plan.levels["level"] if have.get(level, 0) < FEW_RUNS]
    if not few:
        return []
    every = len(few) == len(plan.levels) > 1 and len({n for _, n in few}) == 1
    parts = f"every level ({number(few[0][1])})"
    if not every:
        parts = _list([f"{plan.words(level)} ({number(n)})" for level, n in few])
    return [
        f"Fewer than {number(FEW_RUNS)} valid runs stand behind: {parts}. No interval is given there, and a median of "
        "so few may be chance."
    ]


def _several(value: int, noun: str) -> str:
    return count(value, noun) if value == 1 or not noun.endswith("y") else f"{number(value)} {noun[:-1]}ies"


def _list(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def throughput(valid: pd.DataFrame, plan: Layout, law: Usl | None) -> list[str]:
    """Return what a closed loop's users reach, and the law fitted to it (None: too few levels, or no axis of users)."""
    rows = estimates(valid, plan.levels, ["accepted_per_s"])
    rows = rows[rows["runs"] > 0]
    if rows.empty:
        return []
    parts = [f"{row['median']:,.0f} with {plan.words(row['level'])}" for row in rows.to_dict("records")]
    first = f"Users who each wait for their answer get {parts[0].replace(' with', ' reactions/s through with', 1)}"
    text = first + (f" and {parts[-1]}." if len(parts) > 1 else ".")
    if law is None:
        return [text]
    low, high = law.intervals["sigma"]
    told = f"{percent(law.sigma)} of the work waits for others ({between(percent(low), percent(high), percent(high))})"
    seen = plan.levels.loc[plan.levels["level"].isin(rows["level"]), "x"]
    if law.peak_n <= seen.max():
        told += f", and throughput is greatest at {law.peak_n:,.0f} users"
    return [text, f"By the Universal Scalability Law {told}."]
