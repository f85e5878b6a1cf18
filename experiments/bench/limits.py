"""The benchmark of the naming of a stage that limits: twins of known service times, one of them dilated at a time.

A twin's stages are one process and cannot be slowed one by one; its planted times are dilated instead, as the throttle
does to CPU time. The excess is their sum here, so that the elasticity of a stage is about its part of the sum.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from experiments.parameters import Parameters
from experiments.run.measure import measure
from experiments.stats.elasticity import elasticity, named
from experiments.twin import process, settings
from pipeline.broker import EmbeddedKafka

TIMES_MS = {
    "clear": {"append_ms": 4.0, "micro_batch_ms": 300.0, "subscriber_ms": 30.0},
    "equal": {"append_ms": 4.0, "micro_batch_ms": 150.0, "subscriber_ms": 150.0},
}
"""The mean service times of two twins. In the first Spark's is the largest, in the second no one is."""
EXPECTED = {"clear": "spark", "equal": None}
STAGES = {"kafka": "append_ms", "spark": "micro_batch_ms", "delivery": "subscriber_ms"}
SHARE = 0.2
SPREAD = 0.1
BLOCKS = 6
LOAD: dict[str, Any] = {
    "rate_per_s": 100.0,
    "clients": 4,
    "warm_up_triggers": 2,
    "measured_triggers": 10,
    # Only planted times are compared here: another program's CPU changes none.
    "machine": "shared",
}


def limits() -> dict[str, Any]:
    """Measure both twins in randomised blocks; return what was named in each, and whether that is right."""
    with tempfile.TemporaryDirectory(prefix="emostream-bench-") as scratch, EmbeddedKafka(Path(scratch)) as kafka:
        results = {name: _one(name, Path(scratch), kafka.bootstrap_servers) for name in TIMES_MS}
    return {
        "right": sum(results[name]["named"] == EXPECTED[name] for name in results),
        "twins": len(results),
        "blocks": BLOCKS,
        "share": SHARE,
        "results": results,
    }


def planted(times_ms: dict[str, float], stage: str) -> dict[str, list[float]]:
    """Return the delays of a twin whose `stage` ("none": no one) needs 1 / (1 - SHARE) times as long."""
    means = {
        name: mean_ms / (1 - SHARE) if STAGES.get(stage) == name else mean_ms for name, mean_ms in times_ms.items()
    }
    return {name: [mean_ms * (1 - SPREAD), mean_ms * (1 + SPREAD)] for name, mean_ms in means.items()}


def _one(name: str, scratch: Path, servers: str) -> dict[str, Any]:
    excess_s: dict[str, list[float]] = {stage: [] for stage in ("none", *STAGES)}
    for block in range(1, BLOCKS + 1):
        order = list(excess_s)
        random.Random(f"{name}:{block}").shuffle(order)
        for stage in order:
            twin = settings.build({"seed": block, "trigger_s": 1.0, **planted(TIMES_MS[name], stage)})
            folder = scratch / f"{name}-{block}-{stage}"
            prefix = f"{folder.name}-"
            with process.running(twin, folder / "twin", bootstrap_servers=servers, topic_prefix=prefix) as ready_file:
                run = measure(Parameters(attach=str(ready_file), seed=block, **LOAD), folder / "run")
            excess_s[stage].append(float(run.analysis.summary["e2e_excess_p50_s"]))
    found = [elasticity(stage, excess_s["none"], excess_s[stage], [SHARE] * BLOCKS) for stage in STAGES]
    result = named(found)
    return {
        "named": result.stage,
        "reason": result.reason,
        "elasticities": {one.stage: [round(value, 3) for value in (one.estimate, one.low, one.high)] for one in found},
        "excess_s": {stage: [round(value, 4) for value in values] for stage, values in excess_s.items()},
    }
