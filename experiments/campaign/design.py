"""Designs: experiments as data. What a campaign runs, and in which order."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from experiments.stats.capacity import FEWEST_PROBES, MOST_PROBES, Search

Value = int | float | str
Positive = Annotated[int, Meta(ge=1)]
# Half of the instrument's CPU time is taken away: it needs twice as much of the machine.
DOUBLED: Mapping[str, Value] = MappingProxyType({"slow_stage": "instrument", "slow_share": 0.5})


class SearchSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search for capacity: the parameter that is varied, the least and the largest load to probe, and how many valid
    probes are made. `footprint` is how many more are made, in turn with those, with the instrument's CPU doubled.
    `placement` is "ramp" in campaigns that were made before probes were placed at random.
    """

    factor: str
    least: Annotated[float, Meta(gt=0)]
    most: Annotated[float, Meta(gt=0)]
    probes: Annotated[int, Meta(ge=FEWEST_PROBES, le=MOST_PROBES)] = 24
    footprint: Annotated[int, Meta(ge=0, le=MOST_PROBES)] = 0
    placement: Literal["random", "ramp"] = "random"


class Together(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors that count as one because they change together, and why they do."""

    factors: Annotated[list[str], Meta(min_length=2)]
    why: Annotated[str, Meta(min_length=1)]


class Step(NamedTuple):
    """Two levels, by their index, and the factors in which they differ; those that count as one stand together."""

    level: int
    nearest: int
    factors: list[tuple[str, ...]]


class Design(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a campaign runs.

    `levels` are mappings of parameters, which vary one at a time or crossed; those in a group of `together` count as
    one. `blocks` in a level overrides the design's, so that the most important level may have more. With `intervals`
    the report has to have intervals, for which each level needs enough blocks. A design that searches for a capacity
    has `search` instead.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,60}\Z")]
    about: Annotated[str, Meta(min_length=1)]
    notebook: str = "run"
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 1
    blocks: Positive = 1
    intervals: bool = False
    warm_up_triggers: Positive = 5
    measured_triggers: Positive = 20
    parameters: dict[str, Value] = {}
    levels: list[dict[str, Value]] = []
    together: list[Together] = []
    slos: Annotated[dict[str, float], Meta(min_length=1)]
    search: SearchSpec | None = None

    @property
    def factors(self) -> tuple[str, ...]:
        """The names of the parameters that vary, in the order in which the levels name them."""
        if self.search is not None:
            return (self.search.factor,)
        return tuple(dict.fromkeys(name for level in self.levels for name in level if name != "blocks"))

    def search_plan(self, *, doubled: bool = False) -> Search:
        """The search, with the design's seed; only for a design that has one. `doubled`: that for the footprint."""
        one = self.search
        assert one is not None
        return Search(
            one.factor, one.least, one.most, one.footprint if doubled else one.probes, self.seed + (1 if doubled else 0)
        )

    def given(self, factors: Mapping[str, Value], seed: int) -> dict[str, Value]:
        """All parameters of one run."""
        return {
            "warm_up_triggers": self.warm_up_triggers,
            "measured_triggers": self.measured_triggers,
            **self.parameters,
            **factors,
            "seed": seed,
            "slos": json.dumps(self.slos),
        }

    @property
    def sha256(self) -> str:
        """The hash by which a changed design is recognised."""
        # Fields stay in their order, and only mappings are sorted: campaigns that are half done know these hashes.
        content = msgspec.to_builtins(self, order="deterministic")
        if self.search is not None and not self.search.footprint:
            # As before there were footprints.
            del content["search"]["footprint"]
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


class Planned(msgspec.Struct, frozen=True):
    """One run of the plan: its index in the order, its block, its level and factors, and all of its parameters."""

    index: int
    block: int
    level: str
    factors: dict[str, Value]
    parameters: dict[str, Value]


def order(design: Design) -> list[Planned]:
    """Return the runs of a design with levels, in order: each block has all its levels, shuffled by the seed.

    The levels of a block share the seed of their load: with equal rate and users they get the same reactions, so that
    differences within a block are due to the level.
    """
    runs: list[Planned] = []
    for block in range(1, max(_blocks(design, level) for level in design.levels) + 1):
        of_block = [level for level in design.levels if block <= _blocks(design, level)]
        random.Random(f"{design.seed}:{block}").shuffle(of_block)
        for level in of_block:
            factors = {name: value for name, value in level.items() if name != "blocks"}
            runs.append(planned(design, len(runs), block, factors))
    return runs


def planned(design: Design, index: int, block: int, factors: Mapping[str, Value]) -> Planned:
    """Return one run of `design` at the level `factors`."""
    seed = random.Random(f"{design.seed}:load:{block}").randrange(2**31)
    return Planned(index, block, level_name(factors), dict(factors), design.given(factors, seed))


def confounded(design: Design) -> Step | None:
    """Return a level that no step of one factor leads to, with the level nearest to it; None if there is none.

    From the first level every other one has to be reached in steps that each change one factor. That holds where
    factors are crossed, and where they vary one at a time. Otherwise an effect could not be told from that of another.
    """
    groups = [tuple(group.factors) for group in design.together]
    single = [(name,) for name in design.factors if not any(name in group for group in groups)]
    axes = [*groups, *single]

    def differing(one: int, other: int) -> list[tuple[str, ...]]:
        first, second = design.levels[one], design.levels[other]
        return [axis for axis in axes if any(first.get(name) != second.get(name) for name in axis)]

    reached, left = [0], list(range(1, len(design.levels)))
    while left:
        steps = [Step(level, known, differing(level, known)) for level in left for known in reached]
        step = min(steps, key=lambda each: len(each.factors))
        if len(step.factors) > 1:
            return step
        reached.append(step.level)
        left.remove(step.level)
    return None


def with_blocks(design: Design, blocks: int) -> Design:
    """Return `design` with as many blocks of every level."""
    levels = [{name: value for name, value in level.items() if name != "blocks"} for level in design.levels]
    return msgspec.structs.replace(design, blocks=blocks, levels=levels)


def is_doubled(factors: Mapping[str, Value]) -> bool:
    """Return whether a probe at `factors` is one for the footprint."""
    return DOUBLED.items() <= factors.items()


def level_name(factors: Mapping[str, Value]) -> str:
    """Return a level's name, `users=100, rate_per_s=100`."""
    words = (f"{value:g}" if isinstance(value, float) else str(value) for value in factors.values())
    return ", ".join(f"{name}={word}" for name, word in zip(factors, words, strict=True))


def _blocks(design: Design, level: Mapping[str, Value]) -> int:
    return int(level.get("blocks", design.blocks))
