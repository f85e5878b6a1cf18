"""The plan of a campaign that asks what limits the chain: a design whose levels slow one stage each. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from experiments.campaign.design import Design, with_blocks
from experiments.parameters import bounded
from experiments.stats.paired import FEWEST_BLOCKS
from pipeline.errors import SettingError

STAGE, SHARE, NONE = "slow_stage", "slow_share", "none"
INSTRUMENT = "instrument"


def planned(
    design: Design, *, load: float | None, share: float | None, blocks: int | None, stages: Sequence[str] | None
) -> Design:
    """Return `design` with the load, the share by which the chain's stages are slowed, the number of blocks, and the
    stages that are given; None keeps the design's.

    Raises SettingError naming the option, its value and the remedy, and for a design that does not slow stages.
    """
    check(design)
    levels = [dict(level) for level in design.levels]
    if stages is not None:
        known = [str(level[STAGE]) for level in levels if level[STAGE] != NONE]
        for stage in stages:
            if stage not in known:
                raise SettingError(f"--stages names {stage!r}: use some of {', '.join(known)}, separated by commas")
        if len(set(stages)) < 2:
            raise SettingError(f"--stages is {','.join(stages)!r}: give two or more; one alone cannot be compared")
        levels = [level for level in levels if level[STAGE] in (NONE, *stages)]
    if share is not None:
        try:
            bounded(SHARE, share)
        except SettingError as error:
            raise SettingError(f"--share is {share:g}: give more than 0, at most 0.9") from error
        levels = [level if level[STAGE] == INSTRUMENT else {**level, SHARE: share} for level in levels]
    if blocks is not None and blocks < FEWEST_BLOCKS:
        raise SettingError(f"--blocks is {blocks}: give {FEWEST_BLOCKS} or more; fewer give no interval")
    design = msgspec.structs.replace(design, levels=levels)
    if blocks is not None:
        design = with_blocks(design, blocks)
    return with_load(design, load)


def with_load(design: Design, load: float | None) -> Design:
    """Return `design` with this many reactions per second, None for its own. Raises SettingError for --load."""
    if load is None:
        return design
    try:
        bounded("rate_per_s", load)
    except SettingError as error:
        raise SettingError(f"--load is {load:g}: give reactions per second, more than 0") from error
    return msgspec.structs.replace(design, parameters={**design.parameters, "rate_per_s": load})


def check(design: Design) -> None:
    """Raise SettingError unless each level of `design` names a stage, one of them "none", and each stage once."""
    stages = [level.get(STAGE) for level in design.levels]
    if NONE not in stages or len(stages) < 2 or None in stages:
        raise SettingError(
            f"design {design.name} does not slow stages: each level needs {STAGE}, and one has to be {NONE!r}; see "
            "experiments/designs/limits.yaml"
        )
    twice = next((stage for stage in stages if stages.count(stage) > 1), None)
    if twice is not None:
        raise SettingError(f"design {design.name} has {twice!r} as {STAGE} of two levels: keep one")
