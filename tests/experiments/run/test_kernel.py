"""A notebook is carried out by this interpreter, in a folder of its own, whatever the user has installed and set."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

from experiments.run import kernel, lab, notebook
from tests.harness import machines

SHOWS = """\
import json, os, sys
json.dump({"executable": sys.executable, "cwd": os.getcwd(), "optimized": not __debug__,
           "utf8": sys.flags.utf8_mode, "text": "héllo 😂"},
          open("seen.json", "w", encoding="utf-8"))
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user with kernels, startup files and settings of their own."""
    for name, value in machines.furnish(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "home"


def executed(folder: Path) -> dict[str, object]:
    """Execute a notebook in `folder`; return what it saw."""
    folder.mkdir()
    source = folder / "source.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOWS)]), source)
    papermill = notebook.papermill_with_own_kernel()
    papermill.execute_notebook(source, folder / "executed.ipynb", cwd=folder, progress_bar=False, kernel_name="python3")
    seen: dict[str, object] = json.loads((folder / "seen.json").read_text(encoding="utf-8"))
    return seen


def test_notebook_runs_with_this_interpreter_and_leaves_nothing_else(user: Path, tmp_path: Path) -> None:
    """A kernel python3 of another environment, startup files and settings of the user have no effect on it."""
    before = sorted(user.rglob("*"))
    seen = executed(tmp_path / "run")
    assert seen == {
        "executable": sys.executable,
        "cwd": str(tmp_path / "run"),
        "optimized": False,
        "utf8": 1,
        "text": "héllo 😂",
    }
    assert sorted(user.rglob("*")) == before
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["executed.ipynb", "seen.json", "source.ipynb"]


def test_sockets_fit_into_the_folder_of_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a TMPDIR whose path is longer than a socket's may be."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = kernel.LocalKernel()
    assert made.ip == f"{Path(made.connection_file).parent}/kernel-ipc"
    assert len(os.fsencode(f"{made.ip}-5")) < 104
    assert list(long.iterdir()) == []


def test_folder_of_a_kernel_ends_with_it() -> None:
    """Also if it is not started at all."""
    made = kernel.LocalKernel()
    folder = Path(made.connection_file).parent
    assert folder.is_dir()
    del made
    gc.collect()
    assert not folder.exists()


def test_lab_offers_this_interpreter_alone(user: Path) -> None:
    """Whatever kernels the user has, and whatever the configuration says, JupyterLab has one."""
    kernels = kernel.OwnKernels()
    assert kernels.find_kernel_specs().keys() == {"python3"}
    assert kernels.get_kernel_spec("python3").argv[0] == sys.executable
    assert "--ServerApp.kernel_spec_manager_class=experiments.run.kernel.OwnKernels" in lab.command([], 1000)


@pytest.mark.parametrize(("user_id", "allowed"), [(0, True), (1000, False)])
def test_lab_starts_for_root_too(user_id: int, allowed: bool) -> None:
    """In a container the user often is root. Options of the command line come last."""
    words = lab.command(["--no-browser"], user_id)
    assert ("--allow-root" in words) == allowed
    assert words[-1] == "--no-browser"
