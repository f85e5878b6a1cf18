"""Two searches for a capacity side by side: which chain carries more, with the interval of the ratio of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from experiments.campaign import campaign_file
from experiments.campaign.report import capacity
from experiments.campaign.report.capacity import RAMP, Found
from experiments.report.format import NBSP, whole_percent
from experiments.stats.capacity import FEWEST_PROBES, Difference, difference

COLUMNS = ["campaign", "factor", "estimate", "low", "high", "probes", "passed", "ended", "words"]


def searches(a_dir: Path, b_dir: Path) -> Mapping[str, Found] | None:
    """Return what the searches "A" and "B" found, None unless both are; raises as capacity.read."""
    directories = {"A": a_dir, "B": b_dir}
    if not all(campaign_file.read(directory).searches for directory in directories.values()):
        return None
    return {which: capacity.read(directory) for which, directory in directories.items()}


def comparable(found: Mapping[str, Found]) -> bool:
    """Return whether both searches seek the same limit and have enough probes."""
    a, b = found["A"], found["B"]
    enough = all(result.capacity.probes >= FEWEST_PROBES for result in (a, b))
    return enough and a.search.factor == b.search.factor


def table(found: Mapping[str, Found]) -> pd.DataFrame:
    """Return a row per campaign: COLUMNS, with the headline in `words`; a limit that is not known is null."""
    rows = [
        (which, result.search.factor, result.capacity.estimate, result.capacity.low, result.capacity.high,
         result.capacity.probes, result.capacity.passed, result.capacity.ended, result.headline)
        for which, result in found.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def findings(found: Mapping[str, Found]) -> list[str]:
    """Return in sentences which carries more, or that no difference is supported, and the capacity of each."""
    factors = {which: result.search.factor for which, result in found.items()}
    if factors["A"] != factors["B"]:
        return [f"There is nothing to compare: A seeks the highest {factors['A']}, B the highest {factors['B']}."]
    sentences = [_verdict(found), *(f"{which}: {result.headline}" for which, result in found.items())]
    for which, result in found.items():
        if result.capacity.probes and not result.capacity.ended:
            sentences.append(f"{which}: The search has not ended.")
    if earlier := [which for which, result in found.items() if not result.random]:
        sentences.append(f"{' and '.join(earlier)}: {RAMP}")
    return sentences


def _verdict(found: Mapping[str, Found]) -> str:
    few = [which for which, result in found.items() if result.capacity.probes < FEWEST_PROBES]
    if few:
        return (
            f"There is nothing to compare: {' and '.join(few)} {'has' if len(few) == 1 else 'have'} fewer than "
            f"{FEWEST_PROBES} valid probes."
        )
    a, b = found["A"], found["B"]
    ratio = difference(a.search, a.probes, b.search, b.probes)
    assert ratio is not None
    if ratio.supported:
        more, less, by = ("B", "A", ratio) if ratio.low > 1 else ("A", "B", _inverse(ratio))
        limits = f"at least {_more(by.low)}" if math.isinf(by.high) else f"{_more(by.low)} to {_more(by.high)}"
        return f"{more} carries more than {less}: {_more(by.ratio)} more (95{NBSP}% interval {limits})."
    return (
        f"No difference is supported: B’s capacity is {ratio.low:.2f} to {ratio.high:.2f} times A’s (95{NBSP}% "
        f"interval). Two such searches find a difference of {_more(ratio.detectable)} or more in 80{NBSP}% of cases."
    ).replace("inf times", "any number of times")


def _inverse(ratio: Difference) -> Difference:
    return Difference(1 / ratio.ratio, 1 / ratio.high, 1 / ratio.low if ratio.low else math.inf, ratio.detectable)


def _more(ratio: float) -> str:
    return whole_percent(ratio - 1)
