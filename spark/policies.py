"""Representative policies: how many representatives a type gets on screen, as pure functions with bounds.

A cell is one type in one window. With g = group_size, a cell's error is g·representatives - count. `cell_bounds` and
`cumulative_bounds` return these bounds:

| policy     | rule                                    | a cell's error | a type's, over n of its cells             |
| ---------- | --------------------------------------- | -------------- | ----------------------------------------- |
| ceil       | ⌈count/g⌉                               | 0 … g-1        | 0 … n(g-1): grows with every window       |
| floor      | ⌊count/g⌋                               | -(g-1) … 0     | -n(g-1) … 0: grows with every window      |
| carry      | ⌊(carried + count)/g⌋, carries the rest | -(g-1) … g-1   | -(g-1) … 0: over any number of windows    |
| stochastic | ⌊count/g⌋, +1 with p = (count mod g)/g  | -(g-1) … g-1   | mean 0, standard deviation at most g√n/2  |

`ceil` is the default because it alone shows every type that occurred in the window. The others are for what viewers
see over many windows. Why these policies:

- Rounding to the nearest is not offered. If most cells hold one to four reactions, as in a real audience with many
  types, it hides them all like `floor`; if they hold five to nine, it shows them all like `ceil`.
- `carry` shows a group once it is full. Starting at g/2 would halve the bound, but it would show reactions that nobody
  has sent yet. As it is, the screen never shows more than was counted, and lags by less than one group per type.
- `stochastic` draws for each type separately, from a hash instead of a random generator. The result depends only on
  epoch, window and type, so a replay repeats it and anyone can recompute it. Python's own hash() differs between
  processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple

from pipeline.errors import SettingError

POLICIES = ("ceil", "floor", "carry", "stochastic")
NOTHING: Mapping[str, int] = MappingProxyType({})
_HASH_BYTES = 8


class Shown(NamedTuple):
    """What a window shows: the `representatives` of each counted type, and the remainders `carried` to the next window.

    `carried` has only types with a remainder of 1 or more, sorted by type; it is empty unless the policy is `carry`.
    """

    representatives: dict[str, int]
    carried: dict[str, int]


def ceil(count: int, group_size: int) -> int:
    """Return ⌈count / group_size⌉: every type that occurred has one representative or more."""
    return -(-count // group_size)


def floor(count: int, group_size: int) -> int:
    """Return ⌊count / group_size⌋: full groups only; the remainder of each cell is never shown."""
    return count // group_size


def carry(count: int, group_size: int, carried: int) -> tuple[int, int]:
    """Return the full groups in `carried` + `count`, and the remainder for the next window.

    Over any windows, counts - group_size·representatives = remainder at the end - remainder at the beginning.
    """
    return divmod(carried + count, group_size)


def stochastic(count: int, group_size: int, *, epoch: str, window: int, emoji_type: str) -> int:
    """Return the full groups in `count`, plus one with a probability of remainder / `group_size`.

    The expected value is count / group_size exactly. The uniform number is BLAKE2b of epoch, window and type, compared
    as integers, so it is the same on every machine.
    """
    groups, rest = divmod(count, group_size)
    name = f"{epoch}\0{window}\0{emoji_type}".encode("utf-8", "surrogatepass")
    drawn = int.from_bytes(blake2b(name, digest_size=_HASH_BYTES).digest(), "big")
    return groups + (drawn * group_size < rest << 8 * _HASH_BYTES)


def represent(
    policy: str,
    counts: Mapping[str, int],
    group_size: int,
    *,
    epoch: str,
    window: int,
    carried: Mapping[str, int] = NOTHING,
) -> Shown:
    """Return what window `window` of `epoch` shows for `counts` (type → 1 or more).

    `carried` are the remainders after the previous window. Only `carry` uses them; the other policies carry nothing, so
    a job whose policy changes to `carry` starts without remainders. The remainder of a type that does not occur stays
    unchanged and shows nothing. Raises SettingError for an unknown policy.
    """
    check(policy, group_size)
    if policy == "carry":
        groups = {kind: carry(count, group_size, carried.get(kind, 0)) for kind, count in counts.items()}
        rests = {**carried, **{kind: rest for kind, (_, rest) in groups.items()}}
        return Shown(
            {kind: shown for kind, (shown, _) in groups.items()},
            {kind: rests[kind] for kind in sorted(rests) if rests[kind]},
        )
    if policy == "stochastic":
        drawn = {
            kind: stochastic(count, group_size, epoch=epoch, window=window, emoji_type=kind)
            for kind, count in counts.items()
        }
        return Shown(drawn, {})
    rounded = ceil if policy == "ceil" else floor
    return Shown({kind: rounded(count, group_size) for kind, count in counts.items()}, {})


def cell_bounds(policy: str, group_size: int) -> tuple[int, int]:
    """Return the smallest and the largest possible error of one cell."""
    check(policy, group_size)
    worst = group_size - 1
    return (0 if policy == "ceil" else -worst), (0 if policy == "floor" else worst)


def cumulative_bounds(policy: str, group_size: int, cells: int, doubt: float = 1e-9) -> tuple[float, float]:
    """Return the smallest and the largest possible sum of the errors of `cells` cells of one type.

    The bounds always hold, except for `stochastic`, where they hold with a probability of 1 - `doubt`: its errors are
    independent with mean 0, each within a range of `group_size` (Hoeffding 1963, theorem 2). For `carry` the cells are
    all cells of the type since nothing was carried.
    """
    low, high = cell_bounds(policy, group_size)
    if policy == "carry":
        return float(low if cells else 0), 0.0
    if policy == "stochastic":
        likely = group_size * math.sqrt(cells * math.log(2 / doubt) / 2)
        return -min(likely, -cells * low), min(likely, cells * high)
    return float(cells * low), float(cells * high)


def check(policy: str, group_size: int) -> None:
    """Raise SettingError for an unknown policy or a group size below 1."""
    if policy not in POLICIES or group_size < 1:
        raise SettingError(
            f"policy is {policy!r} and group_size is {group_size!r}: choose one of {', '.join(POLICIES)}, "
            "and a group_size of 1 or more"
        )
