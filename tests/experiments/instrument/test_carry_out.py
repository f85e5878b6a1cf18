"""What `instrument` selects, counts, prints and returns."""

from __future__ import annotations

import argparse
from collections import Counter

import pytest

from experiments.cli.instrument import LINES
from experiments.instrument import live, table
from experiments.instrument.carry_out import SHORT, Result, Selection, _runs, carry_out, selected
from experiments.instrument.fault import Fault, Outcome, heading
from experiments.instrument.frame_faults import FAULTS
from experiments.instrument.live_faults import CHAIN, TWIN, LiveFault
from experiments.instrument.mutations import MUTATIONS
from experiments.machine import machine_lock
from pipeline.errors import SettingError

FAULT = Fault("one", "something", ("lost",))


def test_catalogue_has_what_is_promised():
    """At least sixty faults: twenty in frames, twenty live, twenty mutations; no name twice."""
    assert min(len(FAULTS), len(TWIN) + len(CHAIN), len(MUTATIONS)) >= 20
    names = Counter([*FAULTS, *TWIN, *CHAIN, *MUTATIONS])
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("catalogue", [TWIN, CHAIN])
def test_faults_of_one_run_have_different_names(catalogue):
    """Two that are expected under one name could not be told apart."""
    runs = {}
    for fault in catalogue.values():
        runs.setdefault(fault.run or fault.name, []).extend(fault.expected)
    assert {run: names for run, names in runs.items() if len(set(names)) < len(names)} == {}


def test_unknown_fault_is_named_with_those_alike():
    """Before anything starts."""
    with pytest.raises(SettingError, match=r"--only is 'twin-lots', and there is no such fault: .*twin-lost"):
        selected(["twin-lots"], short=False)


def test_only_selects_what_it_names():
    """Faults of every place, and clean runs."""
    got = selected(["lost", "twin-lost", "clean-twin"], short=False)
    assert got == Selection(("lost",), ("twin-lost",), (), (), clean_twins=1, clean_chains=0)
    assert selected([], short=True) is SHORT
    assert selected([], short=False).clean_twins == 20


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("The clock stepped by +10.0 ms, 30.0 s into the run (at most 5 ms): keep", "The clock stepped"),
        ("Only 98.10% of the plan was sent (981 of 1,000): lower", "Only … of the plan was sent"),
        ("Clients are missing: 5 of the 6 asked for", "Clients are missing"),
    ],
)
def test_heading_has_no_figures(reason, name):
    """So that it is the same in every run."""
    assert heading(reason) == name


def test_result_counts_and_judges():
    """A wrong name, a fault that is not caught, and an alarm each fail the whole."""
    good = Outcome.of(FAULT, "frames", ["lost"])
    wrong = Outcome.of(FAULT, "frames", ["foreign"])
    missed = Outcome.of(FAULT, "frames", [])
    assert Result([good], {"clean-1": []}).passed
    assert not Result([good, wrong]).passed
    assert not Result([good, missed]).passed
    assert not Result([good], {"clean-1": ["lost"]}).passed
    figures = Result([good, wrong, missed], {"clean-1": [], "clean-2": ["lost"]}).figures()
    counts = ("planted", "caught", "named", "clean_runs", "false_alarms")
    assert [figures[name] for name in counts] == [3, 2, 1, 2, 1]
    assert figures["alarms"] == {"clean-2": ["lost"]}


def test_table_says_what_was_missed():
    """On the terminal with the names that were expected; in the documents a row per fault."""
    missed = Outcome.of(FAULT, "frames", [])
    assert table.line(missed) == "MISSED  frames  one: nothing; expected lost"
    about = {"machine": {"cores": 2, "commit": "0123456789"}, "measured_on": "shared"}
    text = "\n".join(table.markdown(Result([missed]).figures() | about))
    assert "(2 cores, commit 0123456, machine=shared)" in text
    assert "0 of 1 planted faults were caught" in text
    assert "| `one` | something | `lost` | nothing |" in text


def test_faults_in_frames_are_planted_without_a_chain(monkeypatch, tmp_path):
    """Each is reported as it is found."""
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    said = []
    result = carry_out(selected(["lost", "clock-stepped"], short=False), "shared", said.append)
    assert result.passed
    assert said == [
        "ok      frames  lost: lost, unexplained, oracle_share",
        "ok      frames  clock-stepped: The clock stepped",
    ]


def test_command_ends_with_1_for_a_fault_that_is_missed(monkeypatch, tmp_path):
    """And with 0 if all are caught; the file is for whole runs only."""
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    _, make, command = LINES["instrument"]
    options = make(argparse.ArgumentParser).parse_args(["--only", "lost", "--reports", str(tmp_path / "reports")])
    assert command(options) == 0
    monkeypatch.setitem(FAULTS, "lost", FAULTS["doubled"].__class__("lost", "", ("no such name",)))
    assert command(options) == 1
    assert not (tmp_path / "reports").exists()


def test_faults_that_share_a_run_are_planted_together():
    """One alone would be called wrong for the names of the others, or would not be planted at all."""
    ((run, faults),) = _runs(["chain-doubled"], CHAIN)
    assert run == "proxy"
    assert [fault.name for fault in faults] == ["chain-lost", "chain-doubled", "chain-altered"]


@pytest.mark.parametrize(
    ("runs", "found", "made_again"),
    [
        ([("lost",)], ("lost",), {}),
        ([("The host took CPU away", "lost"), ("lost",)], ("lost",), {"a": [["The host took CPU away"]]}),
        ([("Foreign work used the machine",)] * 3, ("Foreign work used the machine",),
         {"a": [["Foreign work used the machine"]] * 2}),
        ([("The receivers were late",)], ("The receivers were late",), {}),
    ],
)  # fmt: skip
def test_disturbed_run_is_made_again(runs, found, made_again, tmp_path):
    """At most twice, each under a name of its own; what is planted is no disturbance."""
    fault = LiveFault("late", "", ("The receivers were late",))
    place = live.Place(tmp_path, "own", "")
    names = []

    def run(name):
        names.append(name)
        return runs[len(names) - 1]

    assert live._undisturbed([fault], place, "a", run) == found
    assert place.made_again == made_again
    assert names == ["a", "a-2", "a-3"][: len(runs)]
