"""Mutations: applied to a copy only, refused when their text is gone, and found by the check set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.instrument import mutants
from experiments.instrument.frame_faults import FAULTS
from experiments.instrument.live_faults import TWIN
from experiments.instrument.mutations import CLEAN, MUTATIONS
from experiments.repository import PACKAGE
from pipeline.errors import SettingError

QUICK = MUTATIONS["doubles-ignored"]


@pytest.mark.parametrize("name", MUTATIONS)
def test_text_of_each_mutation_is_in_the_source_once(name):
    """A change of the source must not leave a mutation behind that changes nothing."""
    mutation = MUTATIONS[name]
    assert (PACKAGE / mutation.module).read_text(encoding="utf-8").count(mutation.old) == 1
    assert mutation.new != mutation.old


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_shown_by_runs_that_exist(name):
    """By the clean run, or faults of the catalogues."""
    mutation = MUTATIONS[name]
    assert mutation.on
    assert set(mutation.on) <= {CLEAN, *FAULTS}
    assert not mutation.live or mutation.live in {CLEAN, *TWIN}


def test_mutation_whose_text_is_gone_is_named(tmp_path):
    """With its module, and nothing is copied."""
    gone = replace(QUICK, old="a text that nobody wrote")
    with pytest.raises(SettingError, match=r"mutation doubles-ignored: 'a text that nobody wrote' is 0 times in "):
        mutants.mutated(gone, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mutation_is_found_in_the_copy_alone(tmp_path):
    """The check set differs in the copy, in the figure that the mutation spoils; in the source as it is in nothing."""
    before = (PACKAGE / QUICK.module).read_text(encoding="utf-8")
    mutants.write_cases(QUICK.on, tmp_path / "cases")
    with mutants.checking() as checks:
        assert checks.found(PACKAGE.parent, tmp_path / "cases", QUICK.on) == []
        outcome = mutants.of_analysis(QUICK, checks, tmp_path, tmp_path / "cases")
    assert outcome.named
    assert "duplicated" in outcome.found
    assert (PACKAGE / QUICK.module).read_text(encoding="utf-8") == before


def test_mutation_that_changes_nothing_is_not_caught(tmp_path):
    """Otherwise the table would say little."""
    same = replace(QUICK, new=f"{QUICK.old[:-1]}  # the same\n        )")
    mutants.write_cases(same.on, tmp_path / "cases")
    with mutants.checking() as checks:
        outcome = mutants.of_analysis(same, checks, tmp_path, tmp_path / "cases")
    assert (outcome.caught, outcome.named) == (False, False)
