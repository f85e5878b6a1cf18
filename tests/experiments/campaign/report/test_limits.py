"""The stage that limits: each rule names its own, strongest first."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.analysis import hops
from experiments.campaign.report.limits import STAGE_OF_HOP, limits

CPU = {"kafka": 0.2, "spark": 0.3, "ingest": 0.15, "subscriber": 0.1, "load": 0.1}


def summary(**changes: Any) -> dict[str, Any]:
    """Return the figures of a run that point to no stage, with `changes`."""
    figures: dict[str, Any] = {f"cpu_share_{stage}": share for stage, share in CPU.items()}
    figures |= {f"hop_{name}_mean_ms": 100.0 for name in hops.HOPS}
    figures |= {"valid": True, "reasons": [], "slos": {"headroom": True, "lag_slope_upper_share": True}}
    figures |= {"offered_per_s": 1000.0, "accepted_per_s": 1000.0, "headroom": 0.1, "lag_slope_upper_share": 0.0}
    return figures | changes


def stages(passing: dict[str, Any] | None, failing: dict[str, Any]) -> list[str]:
    """Return the stages named on two cores, strongest evidence first."""
    return [evidence.stage for evidence in limits(passing, failing, 2)]


def test_without_evidence_no_stage_is_named():
    """Figures that say nothing name nothing, nor do missing ones."""
    assert limits(summary(), summary(), 2) == []
    assert limits(None, {}, 2) == []


def test_an_invalid_run_is_the_instrument_and_not_the_chain():
    """A generator that gave up is named first, with the reason."""
    found = limits(summary(), summary(valid=False, reasons=["The generator stalled: 900 ms."], accepted_per_s=800.0), 2)
    assert [evidence.stage for evidence in found] == ["load", "ingest"]
    assert "INVALID (The generator stalled: 900 ms.)" in found[0].reason


def test_a_full_machine_names_its_greatest_consumer_with_its_cores():
    """At 90 % of the cores the stage with the largest share is named, and whose it is."""
    found = limits(summary(), summary(cpu_share_spark=1.25), 2)
    assert [evidence.stage for evidence in found] == ["spark"]
    assert "1.80 of 2 cores are in use, and the chain's spark uses most, 1.25" in found[0].reason
    assert next(iter(found[0].figures)) == "cpu_share_spark"
    assert "the instrument's own load" in limits(None, summary(cpu_share_load=1.2), 2)[0].reason
    assert limits(summary(), summary(cpu_share_spark=1.2), 2) == []


def test_the_machines_own_sum_decides_and_what_is_nobodys_is_no_stage():
    """`machine` is all that was in use, `others` what belongs to no stage: neither is added up or named."""
    busy = summary(cpu_share_machine=1.9, cpu_share_others=1.05)
    assert stages(summary(), busy) == ["spark"]
    assert "1.90 of 2 cores are in use" in limits(None, busy, 2)[0].reason
    assert stages(summary(), summary(cpu_share_machine=1.7, cpu_share_others=0.85)) == []


def test_refused_reactions_name_ingest():
    """Accepted below offered is ingest's doing, with both figures; a thousandth is not refusal."""
    found = limits(summary(), summary(accepted_per_s=930.0), 2)
    assert [evidence.stage for evidence in found] == ["ingest"]
    assert "of 1,000 per second it accepted 930" in found[0].reason
    assert limits(summary(), summary(accepted_per_s=999.5), 2) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"headroom": 0.93, "slos": {"headroom": False}}, "93\u00a0% of their interval"),
        ({"lag_slope_upper_share": 0.034, "slos": {"lag_slope_upper_share": False}}, "3.4\u00a0% of the load"),
    ],
)
def test_micro_batches_out_of_time_name_spark(changes: dict[str, Any], words: str):
    """A failed headroom or lag objective is Spark's, with its figure."""
    found = limits(summary(), summary(**changes), 2)
    assert [evidence.stage for evidence in found] == ["spark"]
    assert words in found[0].reason


@pytest.mark.parametrize("hop", hops.HOPS)
def test_the_hop_that_grew_most_names_its_stage(hop: str):
    """Of several hops that grew, the one by most names its stage."""
    others = {f"hop_{name}_mean_ms": 160.0 for name in hops.HOPS}
    failing = summary(**{**others, f"hop_{hop}_mean_ms": 400.0})
    found = limits(summary(), failing, 2)
    assert [evidence.stage for evidence in found] == [STAGE_OF_HOP[hop]]
    assert "from 100 ms to 400 ms" in found[0].reason
    assert found[0].figures[f"hop_{hop}_growth_ms"] == 300


def test_small_growth_or_missing_pass_gives_no_evidence():
    """Less than 50 ms or 10 % is nothing, and growth needs something to grow from."""
    assert limits(summary(), summary(hop_cluster_mean_ms=140.0), 2) == []
    assert limits(summary(hop_trigger_wait_mean_ms=3000.0), summary(hop_trigger_wait_mean_ms=3200.0), 2) == []
    assert limits(None, summary(hop_cluster_mean_ms=400.0), 2) == []


def test_all_evidence_is_ranked():
    """Where several rules hold, the order is that of the rules."""
    failing = summary(
        valid=False,
        cpu_share_spark=1.3,
        accepted_per_s=900.0,
        headroom=0.9,
        slos={"headroom": False},
        hop_subscriber_mean_ms=900.0,
    )
    assert stages(summary(), failing) == ["load", "spark", "ingest", "spark", "subscriber"]
