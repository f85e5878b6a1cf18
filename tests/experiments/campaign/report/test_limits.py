"""What the runs near a capacity show: facts with their figures, and no stage that is blamed."""

from __future__ import annotations

from typing import Any

from experiments.campaign.report.limits import facts

CPU = {"kafka": 0.2, "spark": 0.3, "ingest": 0.15, "subscriber": 0.1, "load": 0.1, "registry": 0.01}


def summary(**changes: Any) -> dict[str, Any]:
    """Return the figures of a valid run, with `changes`."""
    figures: dict[str, Any] = {f"cpu_share_{stage}": share for stage, share in CPU.items()}
    figures |= {"valid": True, "reasons": [], "offered_per_s": 1000.0, "accepted_per_s": 1000.0}
    return figures | changes


def test_without_figures_there_is_nothing_to_say() -> None:
    """Missing figures give no facts."""
    assert facts({}, 2) == []


def test_the_cores_in_use_are_listed_by_stage() -> None:
    """Largest first, small ones left out; the machine's own sum counts, and what is no stage is not listed."""
    (fact,) = facts(summary(cpu_share_machine=1.9, cpu_share_others=1.0, cpu_share_spark=0.32), 2)
    assert fact.what == "cpu"
    assert fact.words.replace("\u00a0", " ") == (
        "There 1.90 of 2 cores were in use: spark 0.32, kafka 0.20, ingest 0.15, subscriber 0.10 and load 0.10."
    )
    assert next(iter(fact.figures)) == "cpu_share_machine"
    assert "0.86\u00a0cores were in use" in facts(summary(), None)[0].words


def test_refused_reactions_are_counted() -> None:
    """Accepted below offered, with both figures; a thousandth is not refusal."""
    assert facts(summary(accepted_per_s=930.0), 2)[1].words == "Of 1,000 reactions per second ingest accepted 930."
    assert len(facts(summary(accepted_per_s=999.5), 2)) == 1


def test_an_invalid_run_is_said_first_with_its_reason() -> None:
    """Its figures are not those of the chain."""
    found = facts(summary(valid=False, reasons=["The generator stalled: 900 ms."]), 2)
    assert [fact.what for fact in found] == ["invalid", "cpu"]
    assert "INVALID, and its figures are not those of the chain: The generator stalled: 900 ms." in found[0].words


def test_a_hop_that_grew_names_no_stage() -> None:
    """The finding that named the victim: Spark's hop grew most, while it waited for a core."""
    grown = summary(hop_micro_batch_mean_ms=1616.0, headroom=0.93, slos={"headroom": False})
    assert [fact.what for fact in facts(grown, 2)] == ["cpu"]
