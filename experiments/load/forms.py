"""How real senders send a plan: several reactions in one request, and emoji in other spellings. Seeded, and pure.

What is counted does not change: each reaction stays a row of the plan, with the emoji that ingest counts it as.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.load.schedule import bodies
from experiments.units import NS_PER_US
from pipeline.emojis import recognise

ARRAY_SIZES = (2, 5)
"""The least and the most reactions in an array; each size is equally likely."""

# Of the random numbers of a seed: the arrivals stay those of the seed, whatever the forms are.
_STREAM = 0xF0
_TEXT, _EMOJI = "\ufe0e", "\ufe0f"


class Requests(NamedTuple):
    """The requests of a plan, in order of time: when each is due, its body, and which one each row belongs to."""

    due_ns: NDArray[np.int64]
    bodies: list[bytes]
    of_row: NDArray[np.int64]


def as_real_senders(plan: pd.DataFrame, array_share: float, forms_share: float, seed: int) -> pd.DataFrame:
    """Return `plan` with two more columns: `request`, the number of each row's request, and `sent_as`, its spelling.

    A share of `array_share` of the requests are arrays, of ARRAY_SIZES reactions. The reactions that follow its first
    one in the plan join it: they are due with it, one microsecond apart, so that a user and a timestamp still name one
    reaction. The rate stays what it was. An array lies within one phase. A share of `forms_share` of the reactions is
    written in one of the `spellings` of its emoji other than the fully-qualified one.
    """
    rng = np.random.default_rng([seed, _STREAM])
    t_ns = plan["t_intended_ns"].to_numpy(dtype=np.int64).copy()
    starts, sizes = _arrays(rng, t_ns // NS_PER_US, plan["phase"].to_numpy(dtype=object), array_share)
    joins = np.zeros(len(plan), dtype=bool)
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        joins[start + 1 : start + size] = True
        t_ns[start : start + size] = t_ns[start] + NS_PER_US * np.arange(size)
    sent_as = plan["emoji_type"].to_numpy(dtype=object).copy()
    for row in np.flatnonzero(rng.random(len(plan)) < forms_share).tolist():
        others = spellings(sent_as[row])
        sent_as[row] = others[int(rng.integers(len(others)))]
    return plan.assign(t_intended_ns=t_ns, request=np.cumsum(~joins) - 1, sent_as=sent_as)


@lru_cache(maxsize=4096)
def spellings(emoji_type: str) -> tuple[str, ...]:
    """Return the other spellings of a fully-qualified emoji that devices send and ingest counts as the same.

    They are the unqualified one, without variation selectors, where it has any; and those with a selector that changes
    nothing at the end: U+FE0F, or U+FE0E, which asks for the text form.
    """
    bare = emoji_type.replace(_EMOJI, "")
    others = dict.fromkeys((bare, bare + _EMOJI, bare + _TEXT))
    return tuple(text for text in others if text != emoji_type and recognise(text) == emoji_type)


def requests(plan: pd.DataFrame) -> Requests:
    """Return the requests of a plan in order of time; without a column `request` each row has its own.

    An array is due with its last reaction, so that no reaction is sent before its own time.
    """
    single, t_ns = bodies(plan), plan["t_intended_ns"].to_numpy(dtype=np.int64)
    if "request" not in plan or not len(plan):
        return Requests(t_ns, single, np.arange(len(plan)))
    numbers = plan["request"].to_numpy(dtype=np.int64)
    first = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    upto = np.append(first[1:], len(plan))
    whole = [
        single[since] if until - since == 1 else b"[%b]" % b",".join(single[since:until])
        for since, until in zip(first.tolist(), upto.tolist(), strict=True)
    ]
    return Requests(t_ns[upto - 1], whole, np.repeat(np.arange(len(first)), upto - first))


def _arrays(
    rng: np.random.Generator, us: NDArray[np.int64], phase: NDArray[np.object_], share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where arrays begin in the plan, and of how many reactions each is."""
    if not share or not len(us):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    # An array takes up at least two rows, so that these are more than enough.
    count = len(us) // 2 + 1
    sizes = rng.integers(*ARRAY_SIZES, count, endpoint=True)
    singles_before = rng.geometric(share, count) - 1
    starts = np.cumsum(singles_before + sizes) - sizes
    fits = starts + sizes <= len(us)
    starts, sizes = starts[fits], sizes[fits]
    following = np.append(us, us[-1] + ARRAY_SIZES[1])[starts + sizes]
    fits = (phase[starts] == phase[starts + sizes - 1]) & (following >= us[starts] + sizes)
    return starts[fits], sizes[fits]
