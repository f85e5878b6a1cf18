"""Two searches for a capacity side by side: which chain carries more, and by how much at least.

Each search gives an interval, [highest pass, lowest fail]. It has no upper end if no load failed, and starts at 0 if no
load passed. Only intervals that do not overlap support a difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from experiments.campaign import campaign_file
from experiments.campaign.report import capacity
from experiments.campaign.report.capacity import Found
from experiments.campaign.report.levels import axis_text, phrase
from experiments.report.format import whole_percent
from experiments.stats.capacity import Capacity

COLUMNS = ["campaign", "factor", "highest_pass", "lowest_fail", "confirmed", "runs", "words"]


def searches(a_dir: Path, b_dir: Path) -> Mapping[str, Found] | None:
    """Return what the searches "A" and "B" found, None unless both are; raises as capacity.read."""
    directories = {"A": a_dir, "B": b_dir}
    if not all(campaign_file.read(directory).searches for directory in directories.values()):
        return None
    return {which: capacity.read(directory) for which, directory in directories.items()}


def table(found: Mapping[str, Found]) -> pd.DataFrame:
    """Return a row per campaign: COLUMNS, with the interval in `words`; an end that was not found is null."""
    rows = [
        (which, result.search.factor, result.capacity.highest_pass, result.capacity.lowest_fail,
         result.capacity.confirmed, len(result.probes), _interval(result))
        for which, result in found.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def findings(found: Mapping[str, Found]) -> list[str]:
    """Return in sentences which carries more, or that no difference is supported, and the interval of each."""
    factors = {which: result.search.factor for which, result in found.items()}
    if factors["A"] != factors["B"]:
        return [f"There is nothing to compare: A seeks the highest {factors['A']}, B the highest {factors['B']}."]
    sentences = [_verdict(found), *(f"{which}’s capacity {_interval(result)}." for which, result in found.items())]
    for which, result in found.items():
        rest = result.capacity.why.partition(". ")[2]
        sentences += [f"{which}: {rest}"] if rest else []
    return sentences


def _verdict(found: Mapping[str, Found]) -> str:
    unknown = [which for which, result in found.items() if _ends(result.capacity) == (0, math.inf)]
    if unknown:
        return f"There is nothing to compare: no load could be measured in {' and '.join(unknown)}."
    for more, less in (("A", "B"), ("B", "A")):
        above, below = _ends(found[more].capacity)[0], _ends(found[less].capacity)[1]
        factor = found[more].search.factor
        if above > below:
            by = f"{phrase(factor, above - below)} ({whole_percent(above / below - 1)})"
            return (
                f"{more} carries more than {less}, by at least {by}: {more} passes at {phrase(factor, above)}, "
                f"and {less} fails at {phrase(factor, below)}."
            )
        if above == below:
            return (
                f"Only a hint of a difference: at {phrase(factor, above)} {more} passes and {less} fails, and the "
                "intervals of their capacities meet."
            )
    return "No difference is supported: the intervals of the capacities overlap."


def _ends(capacity: Capacity) -> tuple[float, float]:
    low, high = capacity.highest_pass, capacity.lowest_fail
    return (0 if low is None else low), (math.inf if high is None else high)


def _interval(found: Found) -> str:
    low, high, factor = found.capacity.highest_pass, found.capacity.lowest_fail, found.search.factor
    if low is not None and high is not None:
        return f"lies between {axis_text(low)} and {phrase(factor, high)}"
    if low is not None:
        return f"is at least {phrase(factor, low)}, as no load failed"
    if high is not None:
        return f"is below {phrase(factor, high)}, as no load passed"
    return "is not known"
