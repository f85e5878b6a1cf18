"""The delivery benchmark's audit of what a crowd recorded: losses, duplicates, order, and latency. Pure.

The windows of a feed are numbered 0, 1, 2, … without a gap, and `sent_ns[number]` is when the benchmark handed one to
Kafka. A client should get every window from the first that was sent after its stream was open, or from the first it got
if that is an earlier one, to the last, whether it reconnected or not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.analysis.latency import rank_quantile
from experiments.bench.delivery.client import Received
from experiments.units import NS_PER_S

Seconds = NDArray[np.float64]


class Tally(NamedTuple):
    """Windows missing, received again, received after a later one; and events that are not windows of the feed."""

    lost: int
    duplicated: int
    reordered: int
    strange: int


def audit(numbers: Iterable[int], first: int, last: int) -> Tally:
    """Compare the windows received, in order of receipt, with the windows `first` to `last` that were due."""
    seen: set[int] = set()
    duplicated = reordered = 0
    highest = -1
    for number in numbers:
        if number in seen:
            duplicated += 1
            continue
        seen.add(number)
        reordered += number < highest
        highest = max(highest, number)
    lost = sum(number not in seen for number in range(min([first, *seen]), last + 1))
    return Tally(lost, duplicated, reordered, 0)


def tally(received: Iterable[Received], sent_ns: Sequence[int], last: int | None) -> Tally:
    """Return the sums over these clients; `last` None: for each its first to its last window received are due.

    That is for clients that left: it is unknown whether a window sent just then was still due to them.
    """
    total = [0, 0, 0, 0]
    for one in received:
        if last is None:
            first, upto = min(one.numbers, default=0), max(one.numbers, default=-1)
        else:
            first, upto = bisect_right(sent_ns, one.joins[0].opened_ns) if one.joins else 0, last
        of_client = audit(one.numbers, first, upto)._replace(strange=one.strange)
        total = [sum(pair) for pair in zip(total, of_client, strict=True)]
    return Tally(*total)


def pairs_s(received: Sequence[Received], sent_ns: Sequence[int], windows: range) -> tuple[NDArray[np.int64], Seconds]:
    """Return the number and the latency, seconds, of each receipt of one of `windows` by any client."""
    numbers = np.concatenate([np.asarray(one.numbers, dtype=np.int64) for one in received])
    got_ns = np.concatenate([np.asarray(one.received_ns, dtype=np.int64) for one in received])
    inside = (numbers >= windows.start) & (numbers < windows.stop)
    numbers, got_ns = numbers[inside], got_ns[inside]
    return numbers, (got_ns - np.asarray(sent_ns, dtype=np.int64)[numbers]) / NS_PER_S


def last_s(received: Sequence[Received], sent_ns: Sequence[int], windows: range) -> Seconds:
    """Return for each window the time from sending until the last client had it, seconds; inf if one never did."""
    numbers, latency_s = pairs_s(received, sent_ns, windows)
    latest = np.full(len(windows), -math.inf)
    np.maximum.at(latest, numbers - windows.start, latency_s)
    latest[np.bincount(numbers - windows.start, minlength=len(windows)) < len(received)] = math.inf
    return latest


def first_bytes_s(received: Iterable[Received]) -> tuple[Seconds, Seconds]:
    """Return when each client got its first byte, seconds from its due time and from its redirect."""
    joins = [one.joins[0] for one in received if one.joins]
    from_due = [(join.opened_ns - join.due_ns) / NS_PER_S for join in joins]
    from_redirect = [(join.opened_ns - join.sent_ns) / NS_PER_S for join in joins]
    return np.array(from_due, dtype=np.float64), np.array(from_redirect, dtype=np.float64)


def back_s(received: Iterable[Received], address: str, since_ns: int) -> tuple[Seconds, Seconds]:
    """Return how long after `since_ns` each client had a stream from another server than `address`, and a window on it.

    Seconds; inf if never.
    """
    opened, served = [], []
    for one in received:
        again = next((join for join in one.joins if join.opened_ns > since_ns and join.address != address), None)
        opened_ns = math.inf if again is None else float(again.opened_ns)
        opened.append(opened_ns)
        served.append(next((float(got_ns) for got_ns in one.received_ns if got_ns >= opened_ns), math.inf))
    return (np.array(opened) - since_ns) / NS_PER_S, (np.array(served) - since_ns) / NS_PER_S


def quantiles(values: Seconds, digits: int = 4) -> dict[str, float | None]:
    """Return p50, p99 and the maximum for JSON: None for infinite ones, or without any values."""
    ranks = {"p50_s": 0.5, "p99_s": 0.99, "max_s": 1.0}
    return {name: figure(rank_quantile(values, rank), digits) for name, rank in ranks.items()}


def figure(value: float, digits: int = 4) -> float | None:
    """Return `value` for JSON: rounded, None if it is not finite."""
    return round(value, digits) if math.isfinite(value) else None
