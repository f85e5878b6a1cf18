"""What a parameter may be, and how `-p NAME VALUE` becomes one: the same for every notebook, sweep and scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import papermill
import pytest

from experiments.__main__ import main
from experiments.parameters import PARAMETERS
from experiments.repository import NOTEBOOKS
from experiments.run import notebook
from pipeline.errors import SettingError

RUN = NOTEBOOKS / "run.ipynb"
CELL = """\
import os  # is not a parameter
count = 5
below = -5
share = 0.5
loud = True
word = "x"  # text
note = None
levels = [
    1,
    2,
]
pair = (1, 2)
names = {"a": 1}
product = 5 * 4
annotated: str = "x"
bare: int
first = second = 1
run_dir = ""
"""


def written(folder: Path, source: str | list[str] = CELL, tags: tuple[str, ...] = ("parameters",)) -> Path:
    """Return a notebook with one cell."""
    cell = {"cell_type": "code", "metadata": {"tags": tags}, "source": source, "outputs": [], "execution_count": None}
    path = folder / "own.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "7", 7),
        ("count", "-7", -7),
        ("count", "+7", 7),
        ("below", "7", 7),
        ("share", "1", 1.0),
        ("share", "1e3", 1000.0),
        ("share", "-0.25", -0.25),
        ("loud", "FALSE", False),
        ("word", "", ""),
        ("word", "007", "007"),
        ("word", "[3,4]", "[3,4]"),
        ("annotated", "hello", "hello"),
        ("second", "2", 2),
    ],
)
def test_default_says_what_a_parameter_is(name: str, text: str, value: Any, tmp_path: Path) -> None:
    """A whole number, a number, true or false, or text, which is taken as it is."""
    found = notebook.checked(written(tmp_path), {name: text})
    assert found == {name: value}
    assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("note", "hello", "parameter note is 'hello', and has the default None in own.ipynb: a parameter is a whole"),
        (
            "levels",
            "[3,4]",
            r"parameter levels is '\[3,4\]', and has the default \[1, 2\] in own.ipynb: a parameter is",
        ),
        ("pair", "1", r"has the default \(1, 2\) in own.ipynb: .*true or false, or text: its default in the notebook"),
        ("names", "{}", "has the default {'a': 1} in own.ipynb"),
        ("product", "7", r"has the default 5 \* 4 in own.ipynb: .*; give it such a default there"),
        ("bare", "7", "parameter bare is '7', and has no default in own.ipynb: a parameter is"),
        ("count", "7.0", "parameter count is '7.0': give a whole number, such as 5"),
        ("count", "010", "parameter count is '010': give a whole number"),
        ("count", "1_000", "parameter count is '1_000'"),
        ("count", "1e3", "parameter count is '1e3'"),
        ("count", "٣", "parameter count is '٣'"),
        ("count", " 7", "parameter count is ' 7'"),
        ("count", "9" * 6000, "parameter count is '9+…: give a whole number"),
        ("share", "nan", "parameter share is 'nan': give a number, such as 0.5"),
        ("share", "1e999", "parameter share is '1e999': give a number"),
        ("share", "0x10", "parameter share is '0x10': give a number"),
        ("loud", "yes", "parameter loud is 'yes': give true or false, such as True"),
        ("other", "7", "notebook own.ipynb has no parameter 'other': use one of annotated, bare, below, count"),
        ("os", "7", "has no parameter 'os'"),
        ("run_dir", "x", "has no parameter 'run_dir'"),
    ],
)
def test_other_value_is_refused_with_the_rule(name: str, text: str, said: str, tmp_path: Path) -> None:
    """The parameter, the value, the notebook and the remedy."""
    with pytest.raises(SettingError, match=said):
        notebook.checked(written(tmp_path), {name: text})


@pytest.mark.parametrize(
    ("source", "tags", "said"),
    [
        (
            "%matplotlib inline\na = 1",
            ("parameters",),
            "cell tagged `parameters`, line 1 is not Python: keep assignments",
        ),
        ("a = 1", (), "has no parameter 'a': its cell tagged `parameters` assigns none"),
    ],
)
def test_cell_without_plain_assignments_is_named(source: str, tags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """A cell with a magic, and a notebook without the tag."""
    with pytest.raises(SettingError, match=said):
        notebook.checked(written(tmp_path, source, tags), {"a": "1"})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, r"notebook .*own\.ipynb cannot be read \(No such file"),
        (b"{}", r"own\.ipynb is not a Jupyter notebook"),
        (b"[1", r"own\.ipynb is not a Jupyter notebook"),
        (json.dumps({"cells": []}).encode("utf-16"), r"own\.ipynb is not text in UTF-8: it is UTF-16"),
    ],
)
def test_file_that_is_not_a_notebook_is_named(data: bytes | None, said: str, tmp_path: Path) -> None:
    """It is refused before papermill sees it."""
    path = tmp_path / "own.ipynb"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SettingError, match=said):
        notebook.checked(path, {"a": "1"})


def test_notebook_of_a_run_has_exactly_its_parameters() -> None:
    """What a run checks and what the notebook offers are the same."""
    assert list(notebook.checked(RUN, {"users": "7"}).values()) == [7]
    with pytest.raises(SettingError, match=f"use one of {', '.join(sorted(PARAMETERS))}$"):
        notebook.checked(RUN, {"user": "7"})


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("run", {"users": "0"}, "parameter users is 0: give 1 or more"),
        ("quickstart", {"users": "0"}, "parameter users is 0: give 1 or more"),
        ("run", {"seed": "-1"}, "parameter seed is -1: give 0 or more"),
        ("run", {"policy": "best"}, "parameter policy is 'best': choose one of ceil"),
        ("run", {"trace": "x.csv"}, "parameters trace and arrivals are 'x.csv' and 'poisson'"),
        ("run", {"arrivals": "trace", "trace": "none.csv"}, r"trace .*/none\.csv does not exist"),
        ("run", {"users": "1", "rate_per_s": "20000"}, "rate_per_s is 20000.0: 1 users cannot send that often"),
        ("run", {"arrivals": "bursts", "measured_triggers": "1", "trigger_s": "1"}, "a burst lasts 5 s"),
        ("run", {"slos": '{"speed": 1}'}, "slos names 'speed', which is not an objective"),
        ("run", {"slos": '{"lost": 1, "lost": 2}'}, "parameter slos is .*each name once"),
        ("run", {"slos": "[" * 100_000}, "parameter slos is .*: give a JSON object"),
    ],
)
def test_run_that_cannot_be_measured_starts_no_kernel(
    name: str, given: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`experiments run` refuses it in one line, and leaves no directory."""
    started: list[object] = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda *arguments, **_: started.append(arguments))
    options = [word for parameter in given.items() for word in ("-p", *parameter)]
    with pytest.raises(SystemExit, match=f"experiments run: .*{said}"):
        main(["run", *options, "--notebook", str(NOTEBOOKS / f"{name}.ipynb"), "--reports", str(tmp_path)])
    assert started == []
    assert list(tmp_path.iterdir()) == []


def test_load_for_a_chain_that_is_up_is_not_planned_before() -> None:
    """Its trigger is not known yet: the recording may be long enough for it."""
    given = {"arrivals": "trace", "measured_triggers": "100000", "trigger_s": "600"}
    assert notebook.prepared(RUN, {**given, "attach": "ready.json"})["attach"] == "ready.json"
    with pytest.raises(SettingError, match="the trace lasts"):
        notebook.prepared(RUN, given)


def test_parameter_that_is_given_twice_is_refused() -> None:
    """Otherwise the last one would count, silently."""
    with pytest.raises(SystemExit, match="parameter users is given 2 times: keep one `-p users`"):
        main(["run", "-p", "users", "5", "-p", "users", "6"])
