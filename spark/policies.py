"""Representative policies: how many stand on screen for the reactions of a type, as pure functions with bounds.

With g = group_size, a cell's error is g·representatives - count (a cell: one type in one window). The bounds that
`cell_bounds` and `cumulative_bounds` state:

| policy     | rule                                    | a cell's error | a type's, over n of its cells             |
| ---------- | --------------------------------------- | -------------- | ----------------------------------------- |
| ceil       | ⌈count/g⌉                               | 0 … g-1        | 0 … n(g-1): grows with every window       |
| floor      | ⌊count/g⌋                               | -(g-1) … 0     | -n(g-1) … 0: grows with every window      |
| carry      | ⌊(carried + count)/g⌋, carries the rest | -(g-1) … g-1   | -(g-1) … 0: over any number of windows    |
| stochastic | ⌊count/g⌋, +1 with p = (count mod g)/g  | -(g-1) … g-1   | mean 0, standard deviation at most g√n/2  |

`ceil` alone never lets a type vanish that occurred in the window: hence the default. The others are for what viewers
see over many windows. Why these and no other rounding:

- "To the nearest" is none of them: where most cells hold one to four reactions, as in a real audience of many types,
  it hides them all like `floor`, and where they hold five to nine it shows them all like `ceil`.
- `carry` shows a group once it is full. Beginning at g/2 would halve the bound, but show reactions that nobody has
  sent yet; so what is on screen never exceeds what was counted, and lags by less than one group a type.
- `stochastic` draws for each type by itself, from a hash and not from a generator: its answer depends on the window's
  name alone, so that a replay repeats it and anybody can recompute it. Python's own hash() differs from process to
  process.
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
    """What a window shows: `representatives` of each type counted, and the remainders `carried` on after it.

    `carried` holds types with a remainder of 1 or more only, in order of the type, and is empty but for `carry`.
    """

    representatives: dict[str, int]
    carried: dict[str, int]


def ceil(count: int, group_size: int) -> int:
    """Return ⌈count / group_size⌉: up to `group_size` become one, and nothing that happened vanishes."""
    return -(-count // group_size)


def floor(count: int, group_size: int) -> int:
    """Return ⌊count / group_size⌋: full groups only, and of each cell the rest is never shown."""
    return count // group_size


def carry(count: int, group_size: int, carried: int) -> tuple[int, int]:
    """Return how many full groups `carried` and `count` make together, and the remainder that is carried on.

    Over any windows, counts - group_size·representatives = remainder at the end - remainder at the beginning.
    """
    return divmod(carried + count, group_size)


def stochastic(count: int, group_size: int, *, epoch: str, window: int, emoji_type: str) -> int:
    """Return the full groups of `count`, and one more with a probability of its remainder / `group_size`.

    The expected value is count / group_size exactly. The uniform number is BLAKE2b of epoch, window and type, compared
    in integers: the same on every machine.
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

    `carried` are the remainders after the window before, for `carry`; the other policies pass over them, so that a
    job whose policy was changed to `carry` begins with none. A type that is carried but does not occur stays carried
    as it is, for as long as the epoch is known, and nothing is shown for it. Raises SettingError for a policy that
    does not exist.
    """
    checked(policy, group_size)
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
    """Return the least and the most that group_size·representatives - count of one cell can be."""
    checked(policy, group_size)
    worst = group_size - 1
    return (0 if policy == "ceil" else -worst), (0 if policy == "floor" else worst)


def cumulative_bounds(policy: str, group_size: int, cells: int, doubt: float = 1e-9) -> tuple[float, float]:
    """Return the least and the most that the sum of the errors of `cells` cells of one type can be.

    They are certain but for `stochastic`, where they hold with a probability of 1 - `doubt`: its errors are
    independent with mean 0, each within a range of `group_size` (Hoeffding 1963, theorem 2). For `carry` the cells are
    all of the type's since nothing was carried.
    """
    low, high = cell_bounds(policy, group_size)
    if policy == "carry":
        return float(low if cells else 0), 0.0
    if policy == "stochastic":
        likely = group_size * math.sqrt(cells * math.log(2 / doubt) / 2)
        return -min(likely, -cells * low), min(likely, cells * high)
    return float(cells * low), float(cells * high)


def checked(policy: str, group_size: int) -> None:
    """Raise SettingError if there is no such policy or group."""
    if policy not in POLICIES or group_size < 1:
        raise SettingError(
            f"policy is {policy!r} and group_size {group_size!r}: choose one of {', '.join(POLICIES)}, and 1 or more"
        )
