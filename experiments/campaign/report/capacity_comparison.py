"""Two searches for a capacity side by side: which chain carries more, and by how much at least.

Each search gives an interval, [highest pass, lowest fail], with no upper end where nothing failed and down to 0 where
nothing passed. Only intervals that are apart support a difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from experiments.campaign.report import capacity_result, read
from experiments.campaign.report.capacity import Found
from experiments.campaign.report.levels import phrase, plain
from experiments.stats.capacity import Capacity

COLUMNS = ["campaign", "factor", "highest_pass", "lowest_fail", "confirmed", "runs", "words"]


def searches(a_dir: Path, b_dir: Path) -> Mapping[str, Found] | None:
    """Return what the searches "A" and "B" found, None unless both are; raises as capacity_result.read."""
    places = {"A": a_dir, "B": b_dir}
    if not all(read.about(place)["design"].get("search") for place in places.values()):
        return None
    return {which: capacity_result.read(place) for which, place in places.items()}


def table(found: Mapping[str, Found]) -> pd.DataFrame:
    """Return a row a campaign: COLUMNS, with the interval in `words`; an end that was not found is null."""
    rows = [
        (which, one.search.factor, one.capacity.highest_pass, one.capacity.lowest_fail, one.capacity.confirmed,
         len(one.probes), _interval(one))
        for which, one in found.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def findings(found: Mapping[str, Found]) -> list[str]:
    """Return in sentences which carries more, or that no difference is supported, and each one's interval."""
    factors = {which: one.search.factor for which, one in found.items()}
    if factors["A"] != factors["B"]:
        return [f"There is nothing to compare: A seeks the highest {factors['A']}, B the highest {factors['B']}."]
    told = [_verdict(found), *(f"{which}’s capacity {_interval(one)}." for which, one in found.items())]
    for which, one in found.items():
        rest = one.capacity.why.partition(". ")[2]
        told += [f"Of {which}: {rest}"] if rest else []
    return told


def _verdict(found: Mapping[str, Found]) -> str:
    unknown = [which for which, one in found.items() if _ends(one.capacity) == (0, math.inf)]
    if unknown:
        return f"There is nothing to compare: no load could be measured in {' and '.join(unknown)}."
    for more, less in (("A", "B"), ("B", "A")):
        above, below = _ends(found[more].capacity)[0], _ends(found[less].capacity)[1]
        factor = found[more].search.factor
        if above > below:
            by = f"{phrase(factor, above - below)} ({(above / below - 1) * 100:.0f}\u00a0%)"
            return (
                f"{more} carries more than {less}, by at least {by}: {more} passes at {phrase(factor, above)}, "
                f"and {less} fails at {phrase(factor, below)}."
            )
        if above == below:
            return (
                f"A hint of a difference, no more: at {phrase(factor, above)} {more} passes and {less} fails, and the "
                "intervals of their capacities meet there."
            )
    return "No difference is supported: the intervals of the capacities overlap."


def _ends(capacity: Capacity) -> tuple[float, float]:
    low, high = capacity.highest_pass, capacity.lowest_fail
    return (0 if low is None else low), (math.inf if high is None else high)


def _interval(found: Found) -> str:
    low, high, factor = found.capacity.highest_pass, found.capacity.lowest_fail, found.search.factor
    if low is not None and high is not None:
        return f"lies between {plain(low)} and {phrase(factor, high)}"
    if low is not None:
        return f"is at least {phrase(factor, low)}, as no load failed"
    if high is not None:
        return f"is below {phrase(factor, high)}, as no load passed"
    return "is not known"
