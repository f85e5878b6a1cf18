"""The benchmark of the verdict UNSTEADY: a few simulated runs have the rates that the full benchmark states."""

from __future__ import annotations

from experiments.bench.steady import CASES, unsteady_share


def test_few_simulated_runs_have_the_stated_rates() -> None:
    """A quiet steady chain is not called unsteady; the two falls of the reference campaign are found in most runs."""
    by_name = {(case.name, case.windows): case for case in CASES}
    assert unsteady_share(by_name["steady, a quiet chain", 20], 10) == 0
    assert unsteady_share(by_name["falls by 0.8 s per minute", 20], 10) >= 0.6
    assert unsteady_share(by_name["falls by 1.5 s per minute", 20], 10) >= 0.8


def test_cases_of_a_steady_run_have_no_change() -> None:
    """The name of a case says whether something changes in it: the benchmark's rate of false alarms goes by that."""
    assert all(case.steady == case.name.startswith("steady") for case in CASES)
    assert sum(case.steady for case in CASES) == 6
