"""A campaign in sentences: what a person reads first, computed from its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.campaign_levels import FEW_RUNS, Layout, Trend, estimates, of_level, phrase, trend
from experiments.wording import NBSP, count, number, seconds

TRENDS = {
    "e2e_excess_p50_s": "the median's excess",
    "e2e_excess_p99_s": "that of the p99",
    "batch_p95_s": "micro-batch time",
}
_STEPS = {"trigger_s": "second of the interval", "flush_ms": "millisecond of the interval", "speed": "step of speed"}


def findings(
    about: Mapping[str, Any],
    plan: Layout,
    runs: pd.DataFrame,
    objectives: pd.DataFrame,
    capacity: Sequence[str] = (),
) -> list[str]:
    """Return the sentences of the first paragraph.

    `runs` is campaign_levels.derived of all finished runs, `objectives` campaign_facts.by_level. `capacity` are
    the sentences of a search, which come first of the results.
    """
    valid = runs[runs["valid"]] if len(runs) else runs
    sentences = [progress(about, runs)]
    if len(valid):
        sentences += [
            *capacity,
            *_objectives(objectives, plan, searched=bool(capacity)),
            *_latency(valid, plan),
            *_growth(valid, plan),
            counts(valid),
            *_shown(valid, plan),
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
        start = f"{count(done, 'run')} of {number(planned)} {'is' if done == 1 else 'are'} finished so far"
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
    parts = []
    for key, of_key in missed.groupby("key", sort=False):
        at = [plan.words(level) for level in plan.levels["level"] if level in set(of_key["level"])]
        worst = of_key.loc[of_key["missed"].idxmax() if of_key["worst"].isna().any() else of_key["worst"].idxmax()]
        if bool(worst["at_least"]):
            worst = of_key.loc[of_key["worst"].idxmin()] if of_key["worst"].notna().any() else worst
        everywhere = len(at) == plan.levels["level"].isin(rows["level"]).sum()
        where = "" if not several else (" at every level" if everywhere else f" with {_list(at)}")
        if pd.isna(worst["worst"]):
            parts.append(f"“{of_key['name'].iloc[0]}” was not measured in every run{where}")
        else:
            seen, limit = slo_figure(worst["worst"], worst["unit"]), slo_figure(worst["limit"], worst["unit"])
            parts.append(f"“{_lower(str(of_key['name'].iloc[0]))}” is missed{where}: {seen} at worst, {limit} allowed")
    held = total - missed["key"].nunique()
    rest = f"; the other {number(held)} hold everywhere" if held > 1 else ""
    return [f"Of {number(total)} objectives, {'; '.join(parts)}{rest}."]


def _all(total: int) -> str:
    return "The one objective" if total == 1 else f"All {number(total)} objectives"


def _latency(valid: pd.DataFrame, plan: Layout) -> list[str]:
    rows = estimates(valid, plan.levels, ["e2e_excess_p50_s", "e2e_excess_p99_s"])
    ours = rows[(rows["level"] == plan.main)].set_index("key")
    p50, p99 = ours.loc["e2e_excess_p50_s"], ours.loc["e2e_excess_p99_s"]
    if not p50["runs"]:
        return []
    start = f"With {plan.words(plan.main)}, half" if len(plan.levels) > 1 else "Half"
    text = f"{start} of the reactions are on screen {spread(p50)} above what flush and trigger impose"
    if p99["runs"]:
        text += f", 99 in 100 {spread(p99)} above it"
    few = p50["runs"] < FEW_RUNS
    runs = f"from {count(int(p50['runs']), 'run')}" + (", too few for an interval" if few else ", 95 % intervals over runs")
    return [f"{text} ({runs}).".replace("95 %", f"95{NBSP}%")]


def spread(row: Any, form: Any = seconds) -> str:
    """Return a median with its interval: "0.31 s [0.30 to 0.33 s]"; bare where there is none."""
    if row["runs"] < FEW_RUNS or not math.isfinite(row["high"]):
        return str(form(row["median"]))
    low, high = form(row["low"]), form(row["high"])
    if low == high:
        return f"{form(row['median'])} [{low}]"
    if low.rpartition(NBSP)[2] == high.rpartition(NBSP)[2]:
        low = low.rpartition(NBSP)[0]
    return f"{form(row['median'])} [{low} to {high}]"


def _growth(valid: pd.DataFrame, plan: Layout) -> list[str]:
    """What the load (or another quantity) does to latency, and what the runs do not say."""
    trends = [trend(valid, plan, key) for key in TRENDS]
    known = [one for one in trends if math.isfinite(one.slope)]
    if not known or len(plan.levels) < 2:
        return []
    ends = f"From {plan.words(plan.levels['level'].iloc[0])} to {plan.words(plan.levels['level'].iloc[-1])}"
    step = "each tenfold" if plan.log else f"each further {_STEPS.get(plan.factor, phrase(plan.factor, 1))}"
    told = [_told(one, step if i == 0 else "") for i, one in enumerate(one for one in known if one.supported)]
    silent = [TRENDS[one.key] for one in known if not one.supported]
    text = f"{ends}, {_list(told)}" if told else f"{ends}, no trend stands out from the scatter of the runs"
    if told and silent:
        text += f"; that {_list(silent)} change{'s' if len(silent) == 1 else ''} with it the intervals do not support"
    return [text + "."]


def _told(one: Trend, step: str) -> str:
    verb = "grows" if one.slope > 0 else "falls"
    low, high = sorted((abs(one.low), abs(one.high)))
    by = f"{_ms(abs(one.slope))} [{_ms(low).partition(NBSP)[0]} to {_ms(high)}]"
    return f"{TRENDS[one.key]} {verb} by {by}{f' for {step}' if step else ''}"


def _ms(value_s: float) -> str:
    ms = value_s * 1000
    return f"{ms:.2g}{NBSP}ms" if ms < 10 else f"{ms:,.0f}{NBSP}ms"


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
        faults.append(f"{count(differing, 'count')} unlike the recount from Kafka")
    if faults:
        return f"The counts are not all right: {_list(faults)}.".replace("deliverys", "deliveries")
    return (
        f"In all valid runs every one of {int(valid['accepted'].sum()):,} accepted reactions was counted exactly once, all "
        f"{cells:,} counts agree with a recount from Kafka, and each of {due:,} deliveries due arrived once."
    )


def _shown(valid: pd.DataFrame, plan: Layout) -> list[str]:
    """How far what people see is from what was counted, by level where the intervals tell levels apart."""
    rows = estimates(valid, plan.levels, ["representation_error"])
    rows = rows[rows["runs"] > 0]
    if rows.empty:
        return []
    least, most = rows.loc[rows["median"].idxmin()], rows.loc[rows["median"].idxmax()]
    distance = {level: of_level(valid, level, "tv_distance") for level in (least["level"], most["level"])}
    if len(rows) == 1 or not least["high"] < most["low"]:
        row = rows.set_index("level").loc[plan.main] if plan.main in set(rows["level"]) else rows.iloc[0]
        text = f"Counts and what stands for them on screen are {percent(row['median'])} apart"
        if len(rows) == 1:
            return [text + "."]
        return [f"{text} with {plan.words(str(row.name if row.name in distance else plan.main))}, "
                "and the intervals do not tell the levels apart."]  # fmt: skip
    return [
        f"Counts and what stands for them on screen are {percent(least['median'])} apart with "
        f"{plan.words(least['level'])} and {percent(most['median'])} with {plan.words(most['level'])}; "
        f"that moves {percent(_median(distance[least['level']]))} and {percent(_median(distance[most['level']]))} of the "
        "mix between types."
    ]


def _median(values: Any) -> float:
    return float(pd.Series(values).median())


def percent(value: float) -> str:
    """Return a share as prose has it: two figures, and never a rounded "0 %" or "100 %" that is not exact."""
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "beyond measure"
    shown = value * 100
    if 0 < abs(shown) < 0.1:
        return f"under 0.1{NBSP}%"
    if 99.9 < shown < 100:
        return f"99.9{NBSP}%"
    return f"{shown:.1f}{NBSP}%" if abs(shown) < 10 and shown != round(shown) else f"{shown:,.0f}{NBSP}%"


def slo_figure(value: float, unit: str) -> str:
    """Return an objective's figure or limit in its unit."""
    if pd.isna(value):
        return "–"
    if unit == "s":
        return seconds(value)
    if math.isinf(value):
        return "∞"
    return percent(value) if unit == "share" else f"{value:,.10g}"


def warnings(runs: pd.DataFrame, plan: Layout) -> list[str]:
    """Return what the statistics do not carry: levels with too few valid runs."""
    if runs.empty:
        return []
    have = runs[runs["valid"].astype(bool)].groupby("level").size()
    few = [(level, int(have.get(level, 0))) for level in plan.levels["level"] if have.get(level, 0) < FEW_RUNS]
    if not few:
        return []
    parts = _list([f"{plan.words(level)} ({number(n)})" for level, n in few])
    return [f"Fewer than {number(FEW_RUNS)} valid runs stand behind: {parts}. No interval is given there; one run is an anecdote."]


def _list(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
