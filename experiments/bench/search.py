"""The benchmark of the search for a capacity: simulated searches of chains whose capacity is known.

How often does the interval hold the true capacity, and how often are two identical chains called different? Whether a
run passes is drawn from the noise that real runs had. In the reference campaign of 2026-11-24, the eight runs from
3,200 reactions/s up give, by least squares, ln(p99 excess) = 2.30 ln(load) + constant, with residuals of 0.197: so the
load at which a run would just miss its objective scatters by 0.197 / 2.30 = 8.5 % from run to run. A simulated run
passes if its load is below that limit, which is drawn for each run, and also fails with the probability of a lapse.
The normal scatter is not the logistic curve of the fit, on purpose; the variants change it further.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from experiments.campaign import design_file
from experiments.progress import Progress
from experiments.repository import DESIGNS
from experiments.stats.capacity import CONFIDENCE, PASSING, Capacity, Probe, Search, capacity, difference, next_load

SEARCHES = 1_000
VARIANT_SEARCHES = 300
SEARCH_S = 0.08  # for the estimate of the time left
LARGER = 1.25
"""The pairs of different chains: B's capacity is this multiple of A's."""


@dataclass(frozen=True)
class Noise:
    """How runs scatter: the standard deviation of the ln load that a run just carries, the probability of a lapse, the
    degrees of freedom of the scatter (inf: normal), by how much ln capacity drifts from the first probe to the last, up
    or down, and the probability that a run is INVALID.
    """

    limit_sd: float = 0.0855
    lapse: float = 0.02
    freedom: float = math.inf
    drift: float = 0.0
    invalid: float = 0.0

    def passing(self, x: float) -> float:
        """Return the probability that a run passes whose ln load is `x` above the median limit."""
        below = (
            stats.norm.sf(x / self.limit_sd)
            if math.isinf(self.freedom)
            else stats.t.sf(x / self.limit_sd, self.freedom)
        )
        return float((1 - self.lapse) * below)

    def capacity(self) -> float:
        """Return the ln load, from the median limit, at which a run passes with the probability PASSING."""
        return float(optimize.brentq(lambda x: self.passing(x) - PASSING, -40 * self.limit_sd, 5 * self.limit_sd))


REAL = Noise()
VARIANTS: dict[str, Noise] = {
    "a third of the scatter": Noise(limit_sd=REAL.limit_sd / 3),
    "twice the scatter": Noise(limit_sd=2 * REAL.limit_sd),
    "no lapses": Noise(lapse=0.0),
    "5 % lapses": Noise(lapse=0.05),
    "heavy tails (t with 3 degrees of freedom)": Noise(lapse=0.0, freedom=3),
    "the capacity drifts by 10 % during the search": Noise(drift=0.1),
    "10 % of the runs are INVALID": Noise(invalid=0.1),
}


def search() -> dict[str, Any]:
    """Simulate searches as the design `capacity` makes them; return their operating characteristic."""
    of_design = design_file.unrehearsed(DESIGNS / "capacity.yaml").search_plan()
    total_s = SEARCH_S * (SEARCHES + VARIANT_SEARCHES * len(VARIANTS))
    with Progress(total_s) as progress:
        progress.begin(f"{SEARCHES} searches with the noise of real runs", SEARCH_S * SEARCHES)
        figures = simulated(of_design, REAL, SEARCHES)
        variants = []
        for name, noise in VARIANTS.items():
            progress.begin(f"{VARIANT_SEARCHES} searches: {name}", SEARCH_S * VARIANT_SEARCHES)
            variants.append({"noise": name, **simulated(of_design, noise, VARIANT_SEARCHES)})
    real = {name: None if value == math.inf else value for name, value in asdict(REAL).items()}
    return {**figures, "confidence": CONFIDENCE, "probes": of_design.probes, "noise": real, "variants": variants}


def simulated(search: Search, noise: Noise, searches: int, seed: int = 1) -> dict[str, Any]:
    """Return how `searches` simulated searches end, an even number, in pairs of identical chains.

    `covered_share`: intervals that hold the true capacity; a limit that is not known excludes nothing.
    `false_difference_share`: pairs called different. `true_difference_share`: pairs called different, the right way
    round, whose B carries LARGER times as much. `width`: the median ratio of an interval's ends. The true capacity of
    each pair is drawn from the middle half of the search's loads.
    """
    rng = np.random.default_rng(seed)
    low, high = math.log(search.least), math.log(search.most)
    covered, false, true, widths, probes = 0, 0, 0, [], []
    for number in range(0, searches, 2):
        middle = float(rng.uniform(low + (high - low) / 4, high - (high - low) / 4))
        larger = middle + math.log(LARGER)
        sides = [_carried_out(_with_seed(search, number + side), noise, middle, rng) for side in (0, 1)]
        for _, results, found in sides:
            covered += _holds(found, math.exp(middle + noise.capacity()))
            probes.append(len(results))
            if found.low is not None and found.high is not None:
                widths.append(found.high / found.low)
        same = difference(sides[0][0], sides[0][1], sides[1][0], sides[1][1])
        false += bool(same and same.supported)
        other = _carried_out(_with_seed(search, number + searches), noise, larger, rng)
        apart = difference(sides[0][0], sides[0][1], other[0], other[1])
        true += bool(apart and apart.low > 1)
    return {
        "searches": searches,
        "covered_share": round(covered / searches, 4),
        "false_difference_share": round(false / (searches / 2), 4),
        "true_difference_share": round(true / (searches / 2), 4),
        "true_difference": LARGER,
        "width": round(float(np.median(widths)), 4) if widths else None,
        "runs": round(float(np.mean(probes)), 1),
    }


def _carried_out(
    search: Search, noise: Noise, middle: float, rng: np.random.Generator
) -> tuple[Search, list[Probe], Capacity]:
    """Return a whole search of a chain whose median limit is the ln load `middle`."""
    drift = noise.drift * float(rng.choice([-1, 1]))
    results: list[Probe] = []
    while (load := next_load(search, results)) is not None:
        now = middle + drift * (len(results) / (search.probes - 1) - 0.5)
        passed = bool(rng.random() < noise.passing(math.log(load) - now))
        results.append(Probe(load, passed, valid=bool(rng.random() >= noise.invalid)))
    return search, results, capacity(search, results)


def _with_seed(search: Search, seed: int) -> Search:
    return Search(search.factor, search.least, search.most, search.probes, seed)


def _holds(found: Capacity, truth: float) -> bool:
    return (found.low is None or found.low <= truth) and (found.high is None or truth <= found.high)
