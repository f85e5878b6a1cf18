"""Capacity as a search: the highest load that meets all objectives, as an interval [highest pass, lowest fail].

A geometric ramp brackets it, bisection (geometric too) narrows the bracket to the resolution, and it is confirmed
at C and at 1.1 C. The next load follows from the results alone, so that an interrupted search can be resumed.

A load passes or fails by its own repeats. One probe decides until another contradicts it; then it is repeated, and the
majority of up to three decides. An INVALID probe says nothing about the chain: it is repeated once, and a load that is
INVALID twice is not measurable. Such a load ends the search upwards without being a fail: the capacity then has only a
lower bound. A fail below a pass is repeated; if it stays a fail, the interval is at it and not above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import SettingError

MOST_PROBES = 40
STEPS_DOWN = 8
CONFIRM_ABOVE = 1.1


@dataclass(frozen=True)
class Search:
    """A design's `search:`: the factor, its first value, its growth, its largest value, and the resolution (0.1: until
    the lowest fail is 10 % above the highest pass).
    """

    factor: str
    start: float
    growth: float
    most: float
    resolution: float

    def __post_init__(self) -> None:
        if not self.factor:
            raise SettingError("search factor is '': name a parameter, such as rate_per_s")
        for name, least in (("start", 0.0), ("growth", 1.0), ("resolution", 0.0)):
            value = getattr(self, name)
            if not (_number(value) and value > least):
                raise SettingError(f"search {name} is {value!r}: give a number above {least:g}")
        if self.resolution < 0.01:
            raise SettingError(f"search resolution is {self.resolution!r}: give 0.01 or more, a share of the load")
        if not (_number(self.most) and self.most >= self.start):
            raise SettingError(f"search most is {self.most!r}: give a number from start ({self.start:g}) up")


@dataclass(frozen=True)
class Probe:
    """The result of one run of a search at `load`; `why` says what failed or made it INVALID."""

    load: float
    passed: bool
    valid: bool = True
    why: str = ""


@dataclass(frozen=True)
class Capacity:
    """The interval, None without a pass or without a fail; `bounded_above`: a fail bounds it.

    `confirmed`: the search has ended, the highest pass passed twice, and no load above the lowest fail passed.
    """

    highest_pass: float | None
    lowest_fail: float | None
    confirmed: bool
    bounded_above: bool
    why: str


@dataclass(frozen=True)
class _Load:
    load: float
    passes: int
    fails: int
    invalid: int

    @property
    def probes(self) -> int:
        return self.passes + self.fails + self.invalid

    @property
    def undecided(self) -> bool:
        if self.probes >= 5:
            return False
        return self.invalid == 1 if not (self.passes or self.fails) else self.passes == self.fails

    @property
    def passed(self) -> bool:
        return self.passes > self.fails

    @property
    def failed(self) -> bool:
        return not self.undecided and not self.passed and self.fails > 0

    @property
    def unmeasurable(self) -> bool:
        return not self.undecided and not self.passes and not self.fails

    @property
    def settled(self) -> bool:
        return self.probes >= 5 or abs(self.passes - self.fails) >= 2 or self.passes + self.fails >= 3


@dataclass(frozen=True)
class _State:
    loads: tuple[_Load, ...]
    low: _Load | None  # highest pass below the lowest fail
    high: _Load | None  # lowest fail
    top: _Load | None  # lowest load above `low` that cannot be measured

    @property
    def ceiling(self) -> float:
        return min((at.load for at in (self.high, self.top) if at is not None), default=math.inf)

    def at(self, load: float) -> _Load | None:
        return next((known for known in self.loads if math.isclose(known.load, load, rel_tol=1e-9)), None)


def next_load(search: Search, results: Sequence[Probe]) -> float | None:
    """Return the load to probe next after `results` (in the order they happened), None at the end of the search."""
    state = _state(results)
    if len(results) >= MOST_PROBES:
        return None
    if not state.loads:
        return _tidy(search.start)
    for known in state.loads:
        above = any(other.passed and other.load > known.load for other in state.loads)
        if known.undecided or (known is state.high and above and not known.settled):
            return known.load
    return _bracket(search, state) or _confirmation(search, state)


def capacity(search: Search, results: Sequence[Probe]) -> Capacity:
    """Return the capacity by `results`, whether or not the search has ended."""
    state = _state(results)
    low, high = state.low, state.high
    ended = next_load(search, results) is None and len(results) < MOST_PROBES
    sentences = [_interval_words(search, low, high)]
    if low is not None and high is None:
        if state.top is not None:
            sentences.append(
                f"Above, {search.factor} {state.top.load:g} is not measurable: the run was INVALID each time, so this "
                "is a lower bound."
            )
        elif low.load >= _tidy(search.most):
            sentences.append(f"That is the largest load of the search ({search.most:g}): a lower bound.")
    odd = [known.load for known in state.loads if known.passed and high is not None and known.load > high.load]
    confirmed = ended and low is not None and low.passes >= 2 and not odd
    if odd and high is not None:
        sentences.append(
            f"Not monotone: {', '.join(f'{load:g}' for load in odd)} passed above the fail at {high.load:g}, which was "
            "repeated."
        )
    if len(results) >= MOST_PROBES:
        sentences.append(f"The search was ended after {MOST_PROBES} probes.")
    elif not ended:
        sentences.append("The search has not ended.")
    return Capacity(
        low.load if low else None,
        high.load if high else None,
        confirmed,
        high is not None,
        " ".join(sentences),
    )


def _bracket(search: Search, state: _State) -> float | None:
    """Return the next load of ramp, descent or bisection, None once the bracket is narrow enough."""
    least = _tidy(search.start / search.growth**STEPS_DOWN)
    if state.low is None:
        down = _tidy(min(known.load for known in state.loads) / search.growth)
        return down if down >= least else None
    low = state.low.load
    if math.isinf(state.ceiling):
        up = _tidy(min(low * search.growth, search.most))
        return up if up > low else None
    if state.ceiling <= low * (1 + search.resolution) * (1 + 1e-9):
        return None
    middle = _tidy(math.sqrt(low * state.ceiling))
    return middle if low < middle < state.ceiling and state.at(middle) is None else None


def _confirmation(search: Search, state: _State) -> float | None:
    if state.low is None:
        return None
    if state.low.passes < 2 and not state.low.settled:
        return state.low.load
    above = _tidy(state.low.load * CONFIRM_ABOVE)
    if above > search.most or (state.top is not None and above >= state.top.load):
        return None
    # A fail within 2 % of 1.1 C is that probe already: it is repeated instead.
    if state.high is not None and abs(state.high.load / above - 1) <= 0.02:
        return None if state.high.settled else state.high.load
    return above if state.at(above) is None else None


def _state(results: Sequence[Probe]) -> _State:
    by_load: dict[float, list[Probe]] = {}
    for probe in results:
        by_load.setdefault(_tidy(probe.load), []).append(probe)
    loads = tuple(
        _Load(
            load,
            sum(probe.valid and probe.passed for probe in probes),
            sum(probe.valid and not probe.passed for probe in probes),
            sum(not probe.valid for probe in probes),
        )
        for load, probes in sorted(by_load.items())
    )
    high = next((known for known in loads if known.failed), None)
    limit = high.load if high else math.inf
    low = max((known for known in loads if known.passed and known.load < limit), key=lambda at: at.load, default=None)
    top = next((known for known in loads if known.unmeasurable and low is not None and known.load > low.load), None)
    return _State(loads, low, high, top if top is not None and top.load < limit else None)


def _interval_words(search: Search, low: _Load | None, high: _Load | None) -> str:
    if low and high:
        return f"The capacity lies between {search.factor} {low.load:g} (passes) and {high.load:g} (fails)."
    if low:
        return f"The capacity is at least {search.factor} {low.load:g}, the highest that was measured and passes."
    if high:
        return f"The capacity is below {search.factor} {high.load:g}, the lowest that was measured, and fails."
    return "No load could be measured."


def _tidy(load: float) -> float:
    """Return the load with four significant digits: it is read by people, and its repeats must be equal."""
    return float(f"{load:.4g}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
