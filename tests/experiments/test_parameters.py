"""A run's parameters: what is refused and how, and what they share with the chain's settings."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest

from experiments import __main__ as experiments_main
from experiments.parameters import PARAMETERS, Parameters, checked
from experiments.repository import NOTEBOOKS
from experiments.run import notebook
from pipeline.errors import SettingError
from pipeline.settings import FIELDS, Settings

SHARED = [name for name in PARAMETERS if name in FIELDS]


def test_settings_of_the_chain_have_its_defaults() -> None:
    """Nothing of the settings is repeated: a new default there is a new default here."""
    assert {"trigger_s", "policy", "group_size", "flush_ms", "clusters", "ingest_workers"} <= set(SHARED)
    defaults = {field.name: field.default for field in fields(Parameters)}
    assert {name: defaults[name] for name in SHARED} == {name: getattr(Settings(), name) for name in SHARED}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("users", 0, "parameter users is 0: give 1 or more"),
        ("users", 2.5, r"parameter users is 2\.5: give a whole number"),
        ("users", True, "parameter users is True: give a whole number"),
        ("rate_per_s", 0, r"parameter rate_per_s is 0\.0: give more than 0$"),
        ("rate_per_s", float("nan"), "parameter rate_per_s is nan: give a finite number"),
        ("think_s", "long", "parameter think_s is 'long': give a finite number"),
        ("speed", 61, r"parameter speed is 61\.0: give at most 60"),
        ("speed", 0.5, r"parameter speed is 0\.5: give 1 or more, at most 60"),
        ("popularity", "odd", "parameter popularity is 'odd': choose one of zipf, uniform"),
        ("seed", -1, "parameter seed is -1: give 0 or more"),
        ("trace", 7, "parameter trace is 7: give text"),
        ("trigger_s", 0, r"parameter trigger_s is 0\.0: give more than 0, at most 3600"),
        ("trigger_s", 3601, r"parameter trigger_s is 3601\.0: give at most 3600"),
        ("policy", "best", "parameter policy is 'best': choose one of ceil, floor, carry, stochastic"),
        ("policy", ["ceil"], "parameter policy is .*: choose one of"),
        ("clusters", 101, "parameter clusters is 101: give at most 100"),
        ("flush_ms", -1, "parameter flush_ms is -1: give 0 or more, at most 60000"),
        ("slow_stage", "spork", "slow_stage is 'spork': choose one of none, ingest, kafka, spark, delivery"),
        ("slow_share", 0.0, r"parameter slow_share is 0\.0: give more than 0, at most 0.9"),
        ("slow_share", 0.95, r"parameter slow_share is 0\.95: give at most 0.9"),
        ("ingest_workers", 0, "parameter ingest_workers is 0: give 1 or more, at most 64"),
        ("slos", "[]", r"parameter slos is '\[\]': give a JSON object of limits"),
    ],
)
def test_a_bad_value_is_named_with_the_remedy(name: str, value: object, said: str) -> None:
    """The parameter, the value and what to give instead, in that order."""
    with pytest.raises(SettingError, match=said):
        checked({name: value})


def test_an_unknown_name_lists_the_known_ones() -> None:
    """As in a file, where a misspelt name would leave a default in force."""
    with pytest.raises(SettingError, match="there is no parameter 'user': use one of users, rate_per_s"):
        checked({"user": 3})


def test_closed_loop_follows_no_plan() -> None:
    """Users who wait for their answers cannot also follow bursts or a recording."""
    with pytest.raises(SettingError, match="parameters loop and arrivals are 'closed' and 'bursts'"):
        Parameters(loop="closed", arrivals="bursts")


def test_the_command_names_only_what_differs() -> None:
    """It gives the same parameters again."""
    assert Parameters(users=5, slos='{"lost": 0}').command() == (
        """python -m experiments run -p users 5 -p slos '{"lost": 0}'"""
    )


@pytest.mark.parametrize("name", ["a(1)&b.csv", "o'brien.csv", "with space.csv", "-p.csv", "$HOME;x.csv", '"q"\n.csv'])
def test_the_command_gives_the_same_parameters_through_a_shell(name: str) -> None:
    """Whatever the recording's name is: quoted, and never an option."""
    parameters = Parameters(arrivals="trace", trace=name, attach=name, speed=2.0, seed=7)
    program, _, module, *words = shlex.split(parameters.command())
    assert (program, module) == ("python", "experiments")
    options = experiments_main.parser().parse_args(words)
    given = notebook.checked(NOTEBOOKS / "run.ipynb", dict(options.parameters))
    again = Parameters(**given)
    assert {Path(again.trace), Path(again.attach)} == {Path(name)}
    assert replace(again, trace=name, attach=name) == parameters
