"""pyproject.toml, the lock, the conda environment, the Makefile and a checkout agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline.java import MIN_MAJOR

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]]
LOCK = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
# A requirement, and then the hashes of its files, on lines of their own.
LINES = [line for line in LOCK.replace("\\\n", "").splitlines() if line and not line.startswith("#")]
PINS = [Requirement(line.partition(" --hash=")[0]) for line in LINES]
CONDA = yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))


def test_environment_has_the_command() -> None:
    """`make env` ends with an installation of the project itself, from where it stands."""
    assert "pip install --quiet --no-deps --editable ." in (REPOSITORY / ".ci" / "env").read_text(encoding="utf-8")
    script = Path(sys.executable).with_name("emostream")
    done = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=False, timeout=240)
    assert done.stdout.startswith("emostream "), done.stderr


def conda_version(name: str) -> str:
    """Return the version that environment.yml pins the conda package to."""
    pins = dict(entry.split("=", 1) for entry in CONDA["dependencies"] if isinstance(entry, str) and "=" in entry)
    return pins[name]


@pytest.mark.parametrize("direct", DIRECT, ids=lambda requirement: requirement.name)
def test_every_dependency_is_locked_within_its_range(direct: Requirement) -> None:
    """Each pin of a dependency that pyproject.toml names, on any Python, lies in the range given there."""
    versions = [
        next(iter(pin.specifier)).version
        for pin in PINS
        if canonicalize_name(pin.name) == canonicalize_name(direct.name)
    ]
    assert versions, f"requirements.txt does not pin {direct.name}: run `make lock`"
    outside = [version for version in versions if version not in direct.specifier]
    assert not outside, f"{direct} but requirements.txt has {outside}: run `make lock`"


@pytest.mark.parametrize("direct", DIRECT, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_bound_below(direct: Requirement) -> None:
    """A dependency without a lower bound would let an installer choose a release that was never tried."""
    assert {specifier.operator for specifier in direct.specifier} & {">=", "=="}


def test_every_line_of_the_lock_is_exact() -> None:
    """The lock holds one exact version per line, and names no index, address or path."""
    assert PINS
    for pin in PINS:
        assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
        assert "*" not in str(pin.specifier), pin
    assert not re.search(r"://|--(extra-)?index|--find-links|file:|(^|\s)[./~]+/", LOCK, re.MULTILINE)


def test_every_line_of_the_lock_has_hashes() -> None:
    """An installer then refuses a file that is not the locked one, and a package that is not locked."""
    for line in LINES:
        assert re.search(r"( +--hash=sha256:[0-9a-f]{64})+$", line), line


def test_the_lock_has_one_version_for_each_python() -> None:
    """For the Python of environment.yml no package is pinned twice."""
    env = {"python_version": conda_version("python"), "python_full_version": f"{conda_version('python')}.0"}
    names = [canonicalize_name(pin.name) for pin in PINS if pin.marker is None or pin.marker.evaluate(env)]
    assert sorted(names) == sorted(set(names))


def test_conda_gives_the_same_python_and_java() -> None:
    """environment.yml's Python is one that pyproject.toml allows, its Java the oldest that serves."""
    assert Version(conda_version("python")) in SpecifierSet(PROJECT["requires-python"])
    assert conda_version("openjdk") == str(MIN_MAJOR)


def test_conda_installs_the_lock_and_nothing_else() -> None:
    """Python's packages come from requirements.txt alone: pip refuses a folder beside requirements with hashes."""
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--requirement requirements.txt"]
    conda_packages = {entry.split("=")[0] for entry in CONDA["dependencies"] if isinstance(entry, str)}
    # conda's pip installs the lock, which holds a pip for pip-audit; the others must come from one place.
    assert conda_packages & {canonicalize_name(pin.name) for pin in PINS} <= {"pip"}


def test_make_help_lists_every_target() -> None:
    """A target that `make` does not list is hard to find."""
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE))
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert targets == {line.split()[0] for line in listed.splitlines()[1:]}
    required = {"env", "jars", "check", "docs", "test", "experiment", "lab", "bench", "up", "lock", "clean"}
    assert required <= targets


def make_env(python: str, venv: Path, checkout: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run what `make env` runs in `checkout`, with the given interpreters to choose from."""
    env = {**os.environ, "PYTHON": python, "VENV": str(venv)}
    return subprocess.run([".ci/env"], cwd=checkout, env=env, capture_output=True, text=True, check=False)


def old_python(tmp_path: Path) -> Path:
    """Return an interpreter that says it is Python 3.9."""
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac\n')
    old.chmod(0o755)
    return old


def test_an_old_python_is_named(tmp_path: Path) -> None:
    """If no Python is recent enough, the message names those found and how to install one."""
    old = old_python(tmp_path)
    done = make_env(str(old), tmp_path / "venv")
    assert done.returncode == 1
    assert f"Found: {old} is 3.9" in done.stderr
    assert "apt-get install python3" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_java_is_checked_before_anything_is_made(tmp_path: Path) -> None:
    """If the check for Java fails, `make env` ends there: no environment, no download, exit code 1."""
    calls = tmp_path / "calls"
    python = tmp_path / "python3"
    python.write_text(
        f'#!/bin/sh\necho "$1 $2" >>{calls}\ncase "$1" in -m) echo "no Java" >&2; exit 1 ;; esac\necho 3.12\n'
    )
    python.chmod(0o755)
    done = make_env(str(python), tmp_path / "venv")
    assert (done.returncode, done.stderr) == (1, "no Java\n")
    assert calls.read_text().splitlines()[-1] == "-m pipeline.java"
    assert not (tmp_path / "venv").exists()


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs the repository's history, not only its files")
def test_a_checkout_with_crlf_settings_has_lf(tmp_path: Path) -> None:
    """With core.autocrlf and core.eol set as on Windows, every text file still has LF, and the scripts run."""
    clone = tmp_path / "clone"
    settings = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf", "-c", "safe.directory=*"]
    subprocess.run(
        ["git", *settings, "clone", "--quiet", "--no-local", "--depth", "1", str(REPOSITORY), str(clone)],
        capture_output=True,
        check=True,
    )
    listed = subprocess.run(
        ["git", *settings, "ls-files", "--eol"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # "i/lf    w/lf    attr/text=auto eol=lf    path": in the index, in the working tree.
    kinds = {line.split("\t")[-1]: line.split()[1] for line in listed}
    assert kinds["Makefile"] == kinds[".ci/env"] == "w/lf"
    assert [name for name, kind in kinds.items() if kind not in {"w/lf", "w/none", "w/-text"}] == []
    done = make_env(str(old_python(tmp_path)), tmp_path / "venv", clone)
    assert (done.returncode, "is 3.9" in done.stderr) == (1, True), done.stderr
