"""The sweep's decisions, with runs that only leave a verdict: what is repeated, what stops it, how it ends."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from papermill.iorw import LocalHandler

from experiments import __main__ as command_line
from experiments.campaign import sweep as module
from experiments.campaign.design import Design, Planned
from pipeline.errors import EmoStreamError

TEXT = """\
name: tiny
about: Two levels.
seed: 3
levels: [{users: 10}, {users: 50}]
slos: {lost: 0}
"""
SEARCH = """\
name: tiny
about: A search.
search: {factor: rate_per_s, least: 100, most: 1600, probes: 8}
slos: {lost: 0}
"""
Run = Callable[[Planned, int], str]


@pytest.fixture
def design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a small design; the report is left out and the machine's lock is a private one."""
    monkeypatch.setattr(module.machine_lock, "FOLDER", tmp_path)
    monkeypatch.setattr(module.page, "write", lambda directory: directory / "index.html")
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return path


def pretend(monkeypatch: pytest.MonkeyPatch, ends: Run) -> list[int]:
    """Let each run end as `ends(run, which try)` says; return the list that their indices go to."""
    made: list[int] = []

    def execute(design: Design, run: Planned, run_dir: Path) -> None:
        made.append(run.index)
        end = ends(run, made.count(run.index))
        if end == "error":
            raise EmoStreamError("the chain did not start")
        valid, passed = end not in ("invalid", "unsteady"), end == "passed"
        word = "VALID" if valid else end.upper()
        verdict = {"verdict": word, "passed": passed, "reasons": [] if valid else ["late"]}
        (run_dir / "verdict.json").write_text(json.dumps(verdict))

    monkeypatch.setattr(module, "execute", execute)
    return made


@pytest.mark.parametrize(
    ("ends", "made", "status"),
    [
        (lambda run, attempt: "passed", 2, 0),
        (lambda run, attempt: "missed" if run.index else "passed", 2, 3),
        (lambda run, attempt: "invalid" if run.index and attempt == 1 else "passed", 3, 0),
        (lambda run, attempt: "invalid" if run.index else "passed", 3, 4),
        (lambda run, attempt: "unsteady" if run.index else "passed", 3, 4),
        (lambda run, attempt: "error" if run.index and attempt == 1 else "passed", 3, 0),
    ],
    ids=["all passed", "one missed", "INVALID once", "INVALID twice", "UNSTEADY twice", "failed once"],
)
def test_the_exit_status_comes_from_the_verdicts(
    design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Run, made: int, status: int
) -> None:
    """0: all met, 3: an objective missed, 4: a level without a valid run; a bad moment gets a second chance."""
    runs = pretend(monkeypatch, ends)
    outcome = module.sweep(design, tmp_path / "reports")
    assert (len(runs), outcome.status) == (made, status)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (lambda run, attempt: "passed" if run.factors["rate_per_s"] < 500 else "missed", 0),
        (lambda run, attempt: "passed" if run.index == 0 else "invalid", 0),
        (lambda run, attempt: "invalid", 4),
    ],
    ids=["a capacity", "one VALID", "none VALID"],
)
def test_a_search_has_to_have_measured_anything(
    design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Run, status: int
) -> None:
    """Missing its objectives is its way; without a single valid probe it has found nothing."""
    design.write_text(SEARCH)
    pretend(monkeypatch, ends)
    assert module.sweep(design, tmp_path / "reports").status == status


def test_a_full_disk_ends_the_sweep_and_harms_no_finished_run(
    design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Papermill cannot save the second run's notebook: it is named, and due again once there is room."""
    execute = module.execute
    made = pretend(monkeypatch, lambda run, attempt: "passed")
    pretended = module.execute

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(LocalHandler, "write", full)
        disk.setattr(module, "execute", lambda design, run, at: (execute if made else pretended)(design, run, at))
        for _ in range(2):
            with pytest.raises(EmoStreamError, match=r"/executed\.ipynb could not be written: the disk is full: make"):
                module.sweep(design, tmp_path / "reports")
    kept = sorted((tmp_path / "reports").rglob("verdict.json"))
    assert (made, len(kept)) == ([0], 1)
    assert module.sweep(design, tmp_path / "reports").status == 0
    assert made == [0, 1]
    assert kept[0].exists()


def test_files_of_a_run_that_find_no_room_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full refuses every byte, as a full disk does: the executed notebook, and what a run says meanwhile."""
    run = Planned(0, 1, "users=10", {"users": 10}, {"users": 10})
    design = Design(name="tiny", about="One level.", slos={"lost": 0})
    (tmp_path / "executed.ipynb").symlink_to("/dev/full")
    with pytest.raises(EmoStreamError, match=r"executed\.ipynb could not be written: the disk is full"):
        module.execute(design, run, tmp_path)
    (tmp_path / "run.log").unlink()
    (tmp_path / "run.log").symlink_to("/dev/full")
    monkeypatch.setattr(module.notebook, "execute", lambda source, given, run_dir, log: log.write("warming up\n"))
    with pytest.raises(EmoStreamError, match=r"run\.log could not be written: the disk is full"):
        module.execute(design, run, tmp_path)


def test_a_run_that_fails_twice_ends_the_sweep(design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its level and its own words; what was finished stays and is not made again."""
    made = pretend(monkeypatch, lambda run, attempt: "error" if run.index else "passed")
    with pytest.raises(EmoStreamError, match=r"run 2 \(users=\d+\) failed twice: the chain did not start"):
        module.sweep(design, tmp_path / "reports")
    assert made == [0, 1, 1]
    assert module.sweep(design, tmp_path / "reports").status == 4
    assert made == [0, 1, 1]


def test_a_finished_sweep_runs_nothing(design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start only writes its page again."""
    made = pretend(monkeypatch, lambda run, attempt: "passed")
    module.sweep(design, tmp_path / "reports")
    assert module.sweep(design, tmp_path / "reports").finished == len(made) == 2


def test_a_sweep_without_time_makes_one_run_and_can_go_on(
    design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No further run begins that should end too late; a later sweep makes it."""
    made = pretend(monkeypatch, lambda run, attempt: "passed")
    assert module.sweep(design, tmp_path / "reports", until_s=0.0).finished == len(made) == 1
    far_s = time.monotonic() + 1_000_000
    assert module.sweep(design, tmp_path / "reports", until_s=far_s).finished == len(made) == 2


def test_a_second_sweep_is_refused(design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two never overlap: the error of the second names the first, and it leaves no files."""
    pretend(monkeypatch, lambda run, attempt: "passed")
    monkeypatch.setattr(module.machine_lock.psutil.Process, "parents", lambda self: [])
    monkeypatch.setattr(module.machine_lock.os, "getpid", lambda: 1)
    with module.machine_lock.alone("The sweep of other.yaml"):
        monkeypatch.setattr(module.machine_lock.os, "getpid", lambda: 2)
        with pytest.raises(EmoStreamError, match=r"The sweep of other\.yaml \(process 1 .*\) is measuring"):
            module.sweep(design, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


def test_the_command_prints_the_page_and_exits_with_the_status(
    design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's path is all that goes to standard output; the design's error is one line and status 1."""
    pretend(monkeypatch, lambda run, attempt: "missed")
    with pytest.raises(SystemExit) as ended:
        command_line.main(["sweep", str(design), "--reports", str(tmp_path / "reports"), "--campaign", "first"])
    assert ended.value.code == 3
    assert capsys.readouterr().out == f"{tmp_path / 'reports' / 'first' / 'index.html'}\n"
    design.write_text(TEXT.replace("users: 10", "usres: 10"))
    with pytest.raises(SystemExit, match=r"^experiments sweep: .*tiny\.yaml, line 4, field levels\[0\]\.usres"):
        command_line.main(["sweep", str(design), "--reports", str(tmp_path / "reports")])
