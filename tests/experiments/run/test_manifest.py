"""What a run notes of its code, its machine and its files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from experiments import files
from experiments.machine import facts
from experiments.run import manifest
from experiments.run.code_state import code_state


def git(checkout: Path, *arguments: str) -> None:
    """Run git as a person who has configured nothing."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    subprocess.run(["git", *who, *arguments], cwd=checkout, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit and one ignored file."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "code.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("left\n")
    (folder / "left").write_text("a log")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_clean_checkout_has_a_commit_and_no_changes(checkout: Path) -> None:
    """An ignored file is no change."""
    state = code_state(checkout)
    assert (len(state["commit"]), state["dirty"], state["diff_sha256"]) == (40, False, None)


def test_equal_changes_have_equal_hashes_and_other_changes_do_not(checkout: Path) -> None:
    """A change to a file, staged or not, and a new file each count, with name and content."""
    hashes = []
    for path, text in (("code.py", "x = 2\n"), ("new.py", "y = 1\n"), ("new.py", "y = 2\n"), ("ü b.py", "")):
        (checkout / path).write_text(text)
        state = code_state(checkout)
        assert state["dirty"] is True
        assert state == code_state(checkout)
        hashes.append(state["diff_sha256"])
    git(checkout, "add", "code.py")
    assert code_state(checkout)["diff_sha256"] == hashes[-1]
    assert len(set(hashes)) == 4


def test_without_git_nothing_is_claimed(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No repository, or no git: "unknown" is not "no changes"."""
    unknown = {"commit": None, "dirty": None, "diff_sha256": None}
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(checkout / ".git"))
    (tmp_path / "copy").mkdir()
    assert code_state(tmp_path / "copy") == unknown
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state(checkout) == unknown


@pytest.mark.parametrize(
    ("written", "quota", "memory_mb"),
    [
        ({}, None, None),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        ({"cpu.max": "150000 100000\n", "memory.max": "2147483648\n"}, 1.5, 2048),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, None),
        (
            {
                "cpu/cpu.cfs_quota_us": "50000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": "1073741824\n",
            },
            0.5,
            1024,
        ),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None, None),
    ],
)
def test_limits_of_both_versions_of_control_groups_are_read(
    tmp_path: Path, written: dict[str, str], quota: float | None, memory_mb: int | None
) -> None:
    """No limit, and no control group, are null."""
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = facts.machine(cgroup=tmp_path)
    assert (found["cpu_quota_cores"], found["memory_limit_mb"]) == (quota, memory_mb)


def test_manifest_is_json_and_names_the_machine() -> None:
    """Every library that is installed has its version."""
    about = json.loads(json.dumps(manifest.manifest({"seed": 7})))
    assert about["seed"] == 7
    assert about["cores"] == os.cpu_count()
    assert about["usable_cores"] >= 1
    assert about["memory_mb"] > 100
    assert about["packages"]["numpy"]
    assert about["versions"]["pyspark"] == about["packages"]["pyspark"]
    assert all(about["versions"].values())
    assert about["lock_sha256"] == hashlib.sha256(manifest.LOCK.read_bytes()).hexdigest()


def test_frames_have_rows_and_hash(tmp_path: Path) -> None:
    """The hash is of the file."""
    files.to_parquet(pd.DataFrame({"x": [1, 2, 3]}), tmp_path / "plan.parquet")
    whole = (tmp_path / "plan.parquet").read_bytes()
    assert manifest.frames(tmp_path, ["plan"]) == {"plan": {"rows": 3, "sha256": hashlib.sha256(whole).hexdigest()}}


def test_jvm_flags_are_those_before_the_main_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """By stage; arguments of the program itself, and its class path, are left out."""

    class Fake:
        def __init__(self, line: list[str], above: list[Fake]) -> None:
            self.line, self.above = line, above

        def cmdline(self) -> list[str]:
            return self.line

        def parents(self) -> list[Fake]:
            return self.above

        def children(self, recursive: bool) -> list[Fake]:
            assert recursive
            return [broker, jvm, other]

    broker = Fake(["python", "-m", "pipeline.broker"], [])
    line = ["/jdk/bin/java", "-Xmx256m", "-Da=b c", "-cp", "/a.jar:/b.jar", "kafka.Kafka", "-Xnot"]
    jvm, other = Fake(line, [broker]), Fake(["sh", "-c", "java -Xmx1g"], [])
    monkeypatch.setattr(manifest.psutil, "Process", lambda pid: Fake([], []))
    assert manifest.jvm_flags(1) == {"kafka": ["-Xmx256m", "-Da=b c"]}


@pytest.mark.parametrize(
    ("looks_s", "found_s", "made"),
    [
        ((0.0046, 9.0), 0.0046, 1),
        ((0.0070, 0.0047, 9.0), 0.0047, 2),
        ((0.0070, 0.0071, 0.0069, 0.0072, 9.0), 0.0069, 4),
    ],
)
def test_a_slower_machine_is_looked_at_again(
    looks_s: tuple[float, ...], found_s: float, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another machine of the host does passes; a machine that became slower stays so."""
    left = list(looks_s)
    monkeypatch.setattr(facts, "work_s", lambda: left.pop(0))
    assert facts.work_again_s(0.0046) == found_s
    assert len(looks_s) - len(left) == made
