"""Elasticities from interventions: known ones are recovered, and a stage that is not the one is rarely named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.stats.elasticity import Elasticity, bound_per_s, demand, elasticity, named
from experiments.stats.paired import Effect
from pipeline.errors import SettingError

STAGES = ("ingest", "kafka", "spark", "delivery", "instrument")
SHARE = 0.2
NO_RATIO = Effect("ratio", 6, 1.0, 1.0, 1.0, 1.0, 0.0)


def found(stage: str, low: float, high: float, *, blocks: int = 6, infinite: int = 0) -> Elasticity:
    """Return an elasticity with this interval."""
    return Elasticity(stage, blocks, SHARE, (low + high) / 2, low, high, 1.0, NO_RATIO, infinite)


def simulated(rng: np.random.Generator, truth: dict[str, float], blocks: int, noise: float) -> list[Elasticity]:
    """Return what a campaign finds whose stages have these true elasticities; each run's logarithm has this noise.

    All stages of a block share its run as it is, and what differs from block to block.
    """
    level = rng.normal(-1.0, 0.3, blocks)
    base = np.exp(level + rng.normal(0, noise, blocks))
    grown = -math.log1p(-SHARE)
    return [
        elasticity(stage, base, np.exp(level + true * grown + rng.normal(0, noise, blocks)), [SHARE] * blocks)
        for stage, true in truth.items()
    ]


def wrongly_named(truth: dict[str, float], blocks: int, noise: float, campaigns: int = 60) -> float:
    """Return the share of simulated campaigns that name a stage, whichever."""
    rng = np.random.default_rng(7)
    return sum(named(simulated(rng, truth, blocks, noise)).stage is not None for _ in range(campaigns)) / campaigns


@pytest.mark.parametrize("blocks", [6])
@pytest.mark.parametrize(
    "truth",
    [
        dict.fromkeys(STAGES, 0.0),
        dict.fromkeys(STAGES, 2.0),
        {**dict.fromkeys(STAGES, 0.0), "ingest": 3.0, "spark": 3.0},
    ],
    ids=["nothing limits", "all limit alike", "two limit alike"],
)
def test_a_stage_that_does_not_stand_out_is_named_in_at_most_one_campaign_of_twenty(
    truth: dict[str, float], blocks: int
) -> None:
    """Whether no stage matters, all do, or two do equally."""
    assert wrongly_named(truth, blocks, 0.2) <= 0.05


def test_the_stage_that_limits_is_named_and_never_another() -> None:
    """At the noise of a median, a stage near its limit is found in most campaigns; no other one is named in any."""
    rng = np.random.default_rng(3)
    truth = {"ingest": 5.0, "kafka": 0.3, "spark": 1.0, "delivery": 0.0, "instrument": 0.8}
    names = [named(simulated(rng, truth, 6, 0.1)).stage for _ in range(60)]
    assert names.count("ingest") > 45
    assert set(names) <= {"ingest", None}


def test_the_interval_holds_the_true_elasticity_in_nineteen_of_twenty_campaigns() -> None:
    """Its coverage is 95 %, within what 200 campaigns can tell."""
    rng = np.random.default_rng(5)
    results = [simulated(rng, {"spark": 2.0}, 6, 0.2)[0] for _ in range(200)]
    covered = sum(one.low <= 2.0 <= one.high for one in results) / len(results)
    assert 0.91 <= covered <= 0.985


def test_the_share_that_each_block_reached_counts() -> None:
    """A figure that grows with the square of the CPU time has the elasticity 2, at any share."""
    shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.5]
    slowed = [1 / (1 - share) ** 2 for share in shares]
    one = elasticity("spark", [1.0] * 6, slowed, shares)
    assert one.estimate == pytest.approx(2)
    assert one.low == pytest.approx(2) == one.high
    assert one.share == pytest.approx(1 / 3)


def test_few_blocks_give_no_interval_and_an_infinite_figure_no_elasticity() -> None:
    """Five blocks have an estimate only; a block that lost half of its reactions has a sign only."""
    five = elasticity("spark", [1.0] * 5, [1.2, 1.1, 1.3, 1.2, 1.1], [SHARE] * 5)
    assert five.estimate > 0
    assert math.isnan(five.low)
    lost = elasticity("spark", [1.0] * 6, [1.2, 1.1, 1.3, 1.2, 1.1, math.inf], [SHARE] * 6)
    assert math.isnan(lost.estimate)
    assert lost.infinite == 1
    left_out = elasticity("spark", [1.0] * 7, [1.2, 1.1, 1.3, 1.2, 1.1, 1.2, math.nan], [SHARE] * 7)
    assert left_out.blocks == 6


@pytest.mark.parametrize("share", [0.0, -0.1, 1.0, math.nan])
def test_a_share_outside_its_bounds_is_refused(share: float) -> None:
    """With the stage, the share and the bounds."""
    with pytest.raises(SettingError, match=r"the share of spark is .*: give more than 0 and less than 1"):
        elasticity("spark", [1.0], [1.0], [share])


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ([found("spark", 1, 2)], "fewer than two stages"),
        ([found("spark", -1, 2), found("ingest", -2, 1)], "no stage's interval lies above zero"),
        ([found("spark", 2, 4), found("ingest", 0, 2.1)], "the intervals of spark and ingest overlap"),
        # The second by its estimate is not the one whose interval reaches highest.
        ([found("spark", 3, 5), found("ingest", 1, 2), found("kafka", -4, 4)], "of spark and kafka overlap"),
        ([found("spark", 2, 4), found("kafka", math.nan, math.nan, blocks=5)], "kafka has 5 complete blocks"),
        ([found("spark", 2, 4), found("kafka", math.nan, math.nan, infinite=2)], "never arrived in 2 blocks"),
    ],
)
def test_no_stage_is_named_without_evidence(stages: list[Elasticity], reason: str) -> None:
    """And the reason says which stage is in the way."""
    result = named(stages)
    assert result.stage is None
    assert reason in result.reason


def test_a_stage_beyond_every_other_is_named() -> None:
    """Its interval lies above zero and above all others."""
    result = named([found("kafka", -1, 1), found("ingest", 2.2, 4), found("spark", 1, 2.1)])
    assert result.stage == "ingest"
    assert "above that of spark" in result.reason


def test_demands_add_up_to_the_load_that_fills_the_cores() -> None:
    """Half a core at 1,000 reactions per second is 0.5 ms each; two of its processes end at 4,000."""
    ingest = demand("ingest", [0.5] * 6, [1000.0] * 6, 2)
    assert ingest.cpu_s == pytest.approx(0.0005)
    assert ingest.low == pytest.approx(0.0005) == ingest.high
    assert ingest.bound_per_s == pytest.approx(4000)
    kafka = demand("kafka", [0.1, 0.3, math.nan], [1000.0] * 3, None)
    assert (kafka.runs, kafka.bound_per_s) == (2, math.inf)
    assert math.isnan(kafka.low)
    assert math.isnan(demand("kafka", [0.1], [0.0], None).cpu_s)
    assert bound_per_s({"ingest": 0.0005, "kafka": 0.0003, "spark": math.nan}, 2) == pytest.approx(2500)
