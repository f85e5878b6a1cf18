"""Carries out a duel: each run by the side's own code in a process of its own; resumes where it was cut off."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import TextIO

import msgspec

from experiments import files, run_files
from experiments.campaign import design_file
from experiments.campaign.design import with_blocks
from experiments.campaign.sweep import KERNEL_S
from experiments.duel import match as matches
from experiments.duel import page
from experiments.duel.match import Bout, Finished, Match
from experiments.duel.sides import Side, check_start, side
from experiments.machine import machine_lock
from experiments.parameters import checked
from experiments.progress import Progress
from experiments.run import measure
from experiments.run.chain import clean_environment
from pipeline.errors import SettingError

END_S = 60.0


def duel(a: str, b: str, design_path: Path, blocks: int | None, directory: Path) -> Path:
    """Carry out the duel of `a` and `b` in `directory`; return the path of its page.

    Finished runs of a duel that was cut off are kept. Raises SettingError for a wrong side, design or number of blocks,
    EmoStreamError naming the version that does not start or whose run failed, or another measurement on this machine.
    No page is written then.
    """
    sides = {one.name: one for one in (side("A", a), side("B", b))}
    design = design_file.load(design_path)
    if design.search is not None:
        raise SettingError(f"design {design_path} is a search: give a design with levels")
    if blocks is not None:
        if blocks < 1:
            raise SettingError(f"--blocks is {blocks}: give a whole number from 1; an interval needs 6")
        # Who asks for fewer blocks than an interval needs gets the runs without one.
        design = msgspec.structs.replace(with_blocks(design, blocks), intervals=False)
    match = matches.opened(directory, design, design_path, sides)
    with machine_lock.alone(f"The duel of {a} and {b}"):
        if due := match.pending():
            for one in sides.values():
                check_start(one)
            with files.writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            matches.write(directory, match)
            with Progress(sum(map(_expected_s, due))) as progress:
                while pending := match.pending():
                    match = _carry_out(directory, match, sides[pending[0].side], pending[0], progress)
        return page.write(directory, match)


def _carry_out(directory: Path, match: Match, one: Side, bout: Bout, progress: Progress) -> Match:
    progress.begin(f"{bout.index + 1}/{len(match.order)}: {bout.side}, block {bout.block}", _expected_s(bout))
    given = {name: _text(value) for name, value in bout.parameters.items()} | dict(one.parameters)
    options = [word for name, value in given.items() for word in ("-p", name, value)]
    command = one.command("run", *options, "--reports", str(directory), "--campaign", one.name)
    log = directory / f"{bout.index + 1:03d}-{one.name}.log"
    with files.writing(log), log.open("w", encoding="utf-8") as stderr:
        status, output = _ended(command, one, stderr)
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    run_dir = Path(last).parent
    if status or run_dir.parent != directory / one.name / "runs":
        text = log.read_text(encoding="utf-8", errors="replace")
        raise one.error(f"failed in block {bout.block} ({bout.level}; its output is in {log})", text)
    verdict = run_files.verdict(run_dir)
    judged = verdict.valid, verdict.passed, verdict.reasons, verdict.unsteady
    finished = Finished(bout.index, run_dir.name, *judged)
    match = msgspec.structs.replace(match, runs=[*match.runs, finished])
    matches.write(directory, match)
    words = run_files.outcome(valid=finished.valid, unsteady=finished.unsteady, passed=finished.passed)
    progress.note(f"{one.name}  block {bout.block}  {bout.level}: {words}")
    for reason in finished.reasons:
        progress.note(f"  {reason}")
    return match


def _ended(command: list[str], one: Side, stderr: TextIO) -> tuple[int, str]:
    """Return the exit status and the output of a side's run; if this process is interrupted, the run ends first."""
    with subprocess.Popen(
        command, cwd=one.checkout, env=clean_environment(), stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8"
    ) as run:
        try:
            output, _ = run.communicate()
        except BaseException:
            # A kill would leave its chain to end by itself, beside whatever is measured next.
            run.send_signal(signal.SIGINT)
            try:
                run.wait(END_S)
            except subprocess.TimeoutExpired:
                run.kill()
            raise
    return run.returncode, output


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _expected_s(bout: Bout) -> float:
    return KERNEL_S + measure.expected_s(checked(bout.parameters))
