"""Capacity as a point of a dose-response curve: the load at which a run meets every objective with probability 0.9.

Whether a run passes is a matter of chance near the limit, so that no single load separates passes from fails. The
chance is a logistic curve in the logarithm of the load, P(load) = (1 - LAPSE) / (1 + exp((ln load - m) / s)): `s` says
how gradually it falls, and LAPSE is the chance that a run fails for a reason that no lower load would have prevented.
The curve is fitted by Bayes' rule on a grid of (ln capacity, ln s): every capacity from far below `least` to far above
`most` is as likely at first, and s is around 0.05 (a factor of 2.2 either way is one standard deviation), as in the
reference campaign. The interval holds 95 % of the posterior. How often it holds the truth is known from simulation:
experiments.bench.search.

Each probe is placed where it is expected to narrow the posterior most, at random among the loads that are nearly as
good, so that the load neither rises nor falls with time. The next load follows from the seed and the results alone: an
interrupted search is resumed. An INVALID or UNSTEADY probe says nothing about the chain: it is repeated. If it is so
three times and no load as high was ever valid, no such load can be measured: none is probed again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from pipeline.errors import SettingError

PASSING = 0.9
"""The capacity is the load at which a run passes with this probability."""
CONFIDENCE = 0.95
LAPSE = 0.02
POWER = 0.8
FEWEST_PROBES = 6
"""With fewer valid probes no interval is stated."""
MOST_PROBES = 25
INVALID_TRIES = 3
MOST_RUNS = 40
"""A search ends with this many runs, however many of them were INVALID."""

_STEP = 0.02  # of ln load, in the grid of capacities
_BEYOND = 0.7  # of ln load, on either side of the loads that may be probed
_SCALE, _SCALE_SD, _SCALES = 0.05, 0.8, 16
_CANDIDATE = 0.025  # of ln load, between loads that may be probed
_TAILS = ((1 - CONFIDENCE) / 2, 0.5, 1 - (1 - CONFIDENCE) / 2)
_NEARLY_BEST = 0.8  # of the best probe's expected gain
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Search:
    """A design's `search:` and seed: the factor, the least and the largest load to probe, and the number of valid
    probes.
    """

    factor: str
    least: float
    most: float
    probes: int = 24
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.factor:
            raise SettingError("search factor is '': name a parameter, such as rate_per_s")
        if not (_number(self.least) and self.least > 0):
            raise SettingError(f"search least is {self.least!r}: give a number above 0")
        if not (_number(self.most) and self.most >= 1.1 * self.least):
            raise SettingError(
                f"search most is {self.most!r}: give a number from 1.1 times least ({1.1 * self.least:g}) up"
            )
        if not (type(self.probes) is int and FEWEST_PROBES <= self.probes <= MOST_PROBES):
            raise SettingError(
                f"search probes is {self.probes!r}: give a whole number from {FEWEST_PROBES} to {MOST_PROBES}"
            )


@dataclass(frozen=True)
class Probe:
    """The result of one run of a search at `load`; `why` says what failed or made it INVALID or UNSTEADY.

    An `unsteady` probe is not `valid`.
    """

    load: float
    passed: bool
    valid: bool = True
    why: str = ""
    unsteady: bool = False


@dataclass(frozen=True)
class Capacity:
    """The capacity by a posterior: its median, and the 95 % interval `low` to `high`.

    A limit is None where the probes do not give it: `low` if the capacity may be below the least load of the search,
    `high` if it may be above the largest or above a load that cannot be measured, all three with fewer than
    FEWEST_PROBES valid probes. `scale` is s, the posterior's median.
    """

    estimate: float | None
    low: float | None
    high: float | None
    scale: float | None
    probes: int
    passed: int
    ended: bool


@dataclass(frozen=True)
class Difference:
    """B's capacity as a multiple of A's: the median, and the 95 % interval; a limit that is not known is 0 or inf.

    `detectable`: the smallest ratio above 1 that two such searches would have told from 1 in 80 % of cases.
    """

    ratio: float
    low: float
    high: float
    detectable: float

    @property
    def supported(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low > 1 or self.high < 1


def next_load(search: Search, results: Sequence[Probe]) -> float | None:
    """Return the load to probe next after `results` (in the order they happened), None at the end of the search."""
    valid = [probe for probe in results if probe.valid]
    if len(valid) >= search.probes or len(results) >= MOST_RUNS:
        return None
    if results and not results[-1].valid and _invalid_at(results, results[-1].load) < INVALID_TRIES:
        return results[-1].load
    grid = _grid(search.least, search.most)
    ceiling = unmeasurable(results)
    open_to_probes = np.flatnonzero(grid.loads < ceiling)
    if not len(open_to_probes):
        return None
    gain = _expected_gain(grid, _posterior(grid, valid))[open_to_probes]
    good = open_to_probes[gain >= _NEARLY_BEST * gain.max()]
    return float(grid.loads[np.random.default_rng([search.seed, len(results)]).choice(good)])


def capacity(search: Search, results: Sequence[Probe]) -> Capacity:
    """Return the capacity by `results`, whether or not the search has ended."""
    valid = [probe for probe in results if probe.valid]
    passed = sum(probe.passed for probe in valid)
    ended = next_load(search, results) is None
    if len(valid) < FEWEST_PROBES:
        return Capacity(None, None, None, None, len(valid), passed, ended)
    grid = _grid(search.least, search.most)
    posterior = _posterior(grid, valid)
    at = _of_capacity(grid, posterior)
    low, middle, high = np.exp(_quantiles(grid.capacities, at, _TAILS)).tolist()
    scale = float(np.exp(_quantiles(grid.scales, posterior.reshape(grid.shape).sum(axis=0), [0.5])[0]))
    # The prior must not carry a limit beyond every load that was measured.
    low = min(low, max((probe.load for probe in valid if probe.passed), default=low))
    high = max(high, min((probe.load for probe in valid if not probe.passed), default=high))
    top = min(search.most, unmeasurable(results))
    return Capacity(
        middle if search.least <= middle <= top else None,
        low if low >= search.least else None,
        high if high <= top else None,
        scale,
        len(valid),
        passed,
        ended,
    )


def passing(search: Search, results: Sequence[Probe], loads: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the probability of a pass at each of `loads`: lower end, median, upper end of its 95 % band."""
    grid = _grid(search.least, search.most)
    posterior = _posterior(grid, [probe for probe in results if probe.valid])
    bands = []
    for load in loads:
        at_load = _pass_at(load, grid.capacities, grid.scales)
        order = np.argsort(at_load)
        reached = np.cumsum(posterior[order])
        bands.append(at_load[order][np.searchsorted(reached, _TAILS).clip(0, len(order) - 1)])
    low, middle, high = np.array(bands).T
    return low, middle, high


def difference(a: Search, a_results: Sequence[Probe], b: Search, b_results: Sequence[Probe]) -> Difference | None:
    """Return how B's capacity compares with A's, None if either has fewer than FEWEST_PROBES valid probes.

    The two posteriors are independent: the distribution of the difference of the logarithms is their convolution.
    """
    known_a, known_b = capacity(a, a_results), capacity(b, b_results)
    if min(known_a.probes, known_b.probes) < FEWEST_PROBES:
        return None
    sides = [_measured(a, a_results, known_a), _measured(b, b_results, known_b)]
    (x_a, p_a), (x_b, p_b) = sides
    at = x_b[0] - x_a[-1] + _STEP * np.arange(len(x_a) + len(x_b) - 1)
    low, middle, high = np.exp(_quantiles(at, np.convolve(p_b, p_a[::-1]), _TAILS)).tolist()
    variance = sum(float(p @ x**2 - (p @ x) ** 2) for x, p in sides)
    return Difference(
        middle,
        # B may be arbitrarily smaller where B has no lower limit or A no upper one, and the reverse.
        0.0 if known_b.low is None or known_a.high is None else low,
        math.inf if known_b.high is None or known_a.low is None else high,
        math.exp(float(ndtri(1 - (1 - CONFIDENCE) / 2) + ndtri(POWER)) * math.sqrt(variance)),
    )


def _measured(search: Search, results: Sequence[Probe], known: Capacity) -> tuple[Floats, Floats]:
    """Return the posterior of the ln capacity; beyond an end that is open its weight is moved to the last load that was
    measured, which it surely reaches.
    """
    valid = [probe for probe in results if probe.valid]
    grid = _grid(search.least, search.most)
    x, weights = grid.capacities, _of_capacity(grid, _posterior(grid, valid))
    passes, fails = ([math.log(one.load) for one in valid if one.passed is wanted] for wanted in (True, False))
    within = np.clip(
        x,
        min(fails) if known.low is None and fails else None,
        max(passes) if known.high is None and passes else None,
    )
    cells = np.rint((within - x[0]) / _STEP).astype(np.int64)
    return x, np.asarray(np.bincount(cells, weights, minlength=len(x)), dtype=np.float64)


def unmeasurable(results: Sequence[Probe]) -> float:
    """Return the least load that was INVALID three times with no valid run at it or above, inf if there is none."""
    highest = max((probe.load for probe in results if probe.valid), default=0.0)
    tried = {probe.load for probe in results if not probe.valid and probe.load > highest}
    return min((load for load in tried if _invalid_at(results, load) >= INVALID_TRIES), default=math.inf)


@dataclass(frozen=True)
class _Grid:
    """What a posterior is computed on. A weight belongs to each pair of `capacities` (ln load at PASSING) and `scales`
    (ln s), in one row. `pass_at` is the probability of a pass for each of `loads` (rows) and pair (columns), `log_pass`
    and `log_fail` the logarithms of it and of its complement. `moments` are 1, ln capacity and its square of each pair.
    """

    capacities: Floats
    scales: Floats
    prior: Floats
    loads: Floats
    pass_at: Floats
    log_pass: Floats
    log_fail: Floats
    moments: Floats

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.capacities), len(self.scales)


@lru_cache(maxsize=4)
def _grid(least: float, most: float) -> _Grid:
    capacities = np.arange(math.log(least) - _BEYOND, math.log(most) + _BEYOND, _STEP)
    scales = math.log(_SCALE) + _SCALE_SD * np.linspace(-2.5, 2.5, _SCALES)
    weights = np.exp(-0.5 * ((scales - math.log(_SCALE)) / _SCALE_SD) ** 2)
    prior = np.tile(weights / weights.sum() / len(capacities), len(capacities))
    steps = max(math.ceil(math.log(most / least) / _CANDIDATE), 4)
    loads = np.unique([_tidy(load) for load in np.geomspace(least, most, steps + 1)])
    loads = loads[(loads >= least) & (loads <= most)]
    pass_at = np.array([_pass_at(load, capacities, scales) for load in loads])
    x = np.repeat(capacities, len(scales))
    moments = np.stack([np.ones_like(x), x, x**2], axis=1)
    return _Grid(capacities, scales, prior, loads, pass_at, _log(pass_at), _log(1 - pass_at), moments)


def _pass_at(load: float, capacities: Floats, scales: Floats) -> Floats:
    """Return the probability of a pass at `load` for each pair of a capacity (ln load) and a scale (ln s)."""
    scale = np.exp(scales)
    middle = capacities[:, None] - scale * math.log((1 - LAPSE) / PASSING - 1)
    return np.asarray((1 - LAPSE) * expit((middle - math.log(load)) / scale), dtype=np.float64).ravel()


def _log(share: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(share, 1e-300)), dtype=np.float64)


def _posterior(grid: _Grid, valid: Sequence[Probe]) -> Floats:
    log = _log(grid.prior)
    rows = {load: row for row, load in enumerate(grid.loads.tolist())}
    for probe in valid:
        if (row := rows.get(probe.load)) is not None:
            log = log + (grid.log_pass if probe.passed else grid.log_fail)[row]
        else:  # of an earlier search, which chose its loads otherwise
            pass_at = _pass_at(probe.load, grid.capacities, grid.scales)
            log = log + _log(pass_at if probe.passed else 1 - pass_at)
    weights = np.exp(log - log.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _expected_gain(grid: _Grid, posterior: Floats) -> Floats:
    """Return by how much a probe at each load is expected to lower the variance of the ln capacity."""
    weighted = posterior[:, None] * grid.moments
    total = weighted.sum(axis=0)
    passed = grid.pass_at @ weighted
    return np.asarray(_variance(total[None, :]) - _variance(passed) - _variance(total - passed), dtype=np.float64)


def _variance(moments: Floats) -> Floats:
    """Return the variance times the weight, from the weighted moments 0, 1 and 2 in columns."""
    return np.asarray(moments[:, 2] - moments[:, 1] ** 2 / np.maximum(moments[:, 0], 1e-300), dtype=np.float64)


def _of_capacity(grid: _Grid, posterior: Floats) -> Floats:
    return np.asarray(posterior.reshape(grid.shape).sum(axis=1), dtype=np.float64)


def _quantiles(at: Floats, weights: Floats, shares: Sequence[float]) -> Floats:
    return np.interp(shares, np.cumsum(weights) - weights / 2, at)


def _invalid_at(results: Sequence[Probe], load: float) -> int:
    return sum(not probe.valid and probe.load == load for probe in results)


def _tidy(load: float) -> float:
    """Return the load with four significant digits: it is read by people, and its repeats must be equal."""
    return float(f"{load:.4g}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
