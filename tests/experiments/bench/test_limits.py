"""The benchmark of the naming: what it plants in its twins."""

from __future__ import annotations

import pytest

from experiments.bench.limits import STAGES, TIMES_MS, planted
from experiments.twin import settings


@pytest.mark.parametrize("stage", ["none", *STAGES])
def test_only_the_slowed_stage_takes_longer(stage: str) -> None:
    """By a quarter, at a share of a fifth; and a twin can be made of it."""
    for times_ms in TIMES_MS.values():
        means = {name: sum(span) / 2 for name, span in planted(times_ms, stage).items()}
        for name, mean_ms in times_ms.items():
            assert means[name] == pytest.approx(mean_ms * (1.25 if STAGES.get(stage) == name else 1))
        settings.build({"trigger_s": 1.0, **planted(times_ms, stage)})
