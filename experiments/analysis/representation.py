"""How well the representatives of a run stand for its counts, and whether the policy's arithmetic is right."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass

import pandas as pd

from experiments.ledger import WINDOW_KEY, LedgerError, cells, unique_windows
from spark.policies import cell_bounds, represent


@dataclass(frozen=True)
class Representation:
    """How well the representatives stand for the counts.

    `error` = Σ|count - group·representatives| / Σcount; `bound`: the most the policy allows for these cells;
    `tv_distance`: total-variation distance, 0 to 1, between the shares of the types counted and shown (all
    windows together); `over_bound`: cells further off than the policy allows (then its arithmetic is wrong).
    """

    error: float
    bound: float
    tv_distance: float
    over_bound: pd.DataFrame


def representation(windows: pd.DataFrame, *, group_size: int = 10, policy: str = "ceil") -> Representation:
    """Return the representation error of `windows`; NaN where nothing was counted.

    The allowed error of a cell is the policy's own bound, spark.policies.cell_bounds. Raises SettingError for a policy
    that does not exist.
    """
    low, high = cell_bounds(policy, group_size)
    seen = cells(unique_windows(windows))
    signed = group_size * seen["representatives"] - seen["count"]
    total = int(seen["count"].sum())
    if total == 0:
        return Representation(math.nan, math.nan, math.nan, seen.iloc[:0])
    by_type = seen.groupby("emoji_type")[["count", "representatives"]].sum()
    return Representation(
        error=float(signed.abs().sum() / total),
        bound=max(high, -low) * len(seen) / total,
        tv_distance=tv_distance(by_type["count"], by_type["representatives"]),
        over_bound=seen[(signed < low) | (signed > high)].reset_index(drop=True),
    )


def tv_distance(counted: pd.Series[int], shown: pd.Series[int]) -> float:
    """Return the total-variation distance, 0 to 1, between the types' shares of `counted` and of `shown`.

    1 if reactions were counted and none is shown, NaN if none was counted.
    """
    total, total_shown = int(counted.sum()), int(shown.sum())
    if not total:
        return math.nan
    return float((counted / total - shown / total_shown).abs().sum()) / 2 if total_shown else 1.0


WRONG_COLUMNS = (
    *("epoch", "window", "emoji_type", "count"),
    *("representatives", "expected", "carried", "expected_carried"),
)


def representatives_wrong(windows: pd.DataFrame, *, group_size: int, policy: str) -> pd.DataFrame:
    """Recompute every window's representatives from its counts, and return the cells that differ: WRONG_COLUMNS.

    Under `carry` a window starts from the remainders that the one before it reports, so that one fault is named once.
    If that window is not known, because the run joined a chain that was up or a window is missing, it starts from the
    one remainder per type that fits its own record; if none fits, the cell is wrong.
    """
    known = unique_windows(windows).sort_values(WINDOW_KEY)
    counted: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    shown: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for epoch, number, kind, count, representatives in cells(known).itertuples(index=False):
        counted[epoch, number][kind] = count
        shown[epoch, number][kind] = representatives
    after: dict[tuple[str, int], dict[str, int]] = {}
    rows: list[tuple[object, ...]] = []
    for epoch, number, text in zip(known["epoch"], known["window"], known["carried"], strict=True):
        counts, own = counted[epoch, number], shown[epoch, number]
        carried = after[epoch, number] = _carried(epoch, number, text)
        start = after.get((epoch, number - 1))
        if start is None:
            start = {} if number == 0 or policy != "carry" else _fitting(carried, counts, own, group_size)
        right = represent(policy, counts, group_size, epoch=epoch, window=number, carried=start)
        for kind in {**counts, **carried, **right.carried}:
            got = (own.get(kind, 0), carried.get(kind, 0))
            expected = (right.representatives.get(kind, 0), right.carried.get(kind, 0))
            if got != expected:
                rows.append((epoch, number, kind, counts.get(kind, 0), got[0], expected[0], got[1], expected[1]))
    return pd.DataFrame(rows, columns=list(WRONG_COLUMNS))


def _fitting(carried: dict[str, int], counts: dict[str, int], shown: dict[str, int], group_size: int) -> dict[str, int]:
    """Return the remainders that a window must have started from, if its record is right."""
    return {
        kind: (carried.get(kind, 0) + group_size * shown.get(kind, 0) - counts.get(kind, 0)) % group_size
        for kind in {**carried, **counts}
    }


def _carried(epoch: object, number: int, text: str) -> dict[str, int]:
    try:
        return {str(kind): int(rest) for kind, rest in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise LedgerError(
            f'Window {epoch}:{number} has carried {text!r}: expected JSON like {{"😂": 7}}, or {{}}.'
        ) from error
