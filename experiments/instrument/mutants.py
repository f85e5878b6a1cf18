"""Apply mutations to copies of the package, and run the check set in each.

The check set runs in forks of one process that has imported the libraries, and nothing of the instrument: a fork then
imports the instrument from its copy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from experiments import text_files
from experiments.instrument import check_set
from experiments.instrument.fault import Outcome
from experiments.instrument.frame_faults import FAULTS, planted
from experiments.instrument.live_faults import TWIN
from experiments.instrument.mutations import CLEAN, Mutation
from experiments.repository import PACKAGE
from experiments.run.chain import clean_environment
from experiments.second_reading.reading import read_frames
from experiments.synthetic.run import make_run
from pipeline.errors import EmoStreamError

# Long enough for p99 and for the growth of the lag.
MEASURED_TRIGGERS = 12
# What a fork runs: it gets the folder of the copy, that of the cases, and the names of the cases.
FORKING = """
import json, os, sys
import duckdb, numpy, pandas, pyarrow, scipy.stats, statsmodels.api, msgspec, yaml, psutil
for line in sys.stdin:
    copy, cases, names = json.loads(line)
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sys.path.insert(0, copy)
            from pathlib import Path
            from experiments.instrument import check_set
            assert check_set.__file__.startswith(copy), check_set.__file__
            answer = check_set.found(check_set.read(name, Path(cases)) for name in names)
        except BaseException as error:
            answer = [f"raised {type(error).__name__}", str(error)]
        os.write(sending, json.dumps(answer).encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as stream:
        print(stream.read().decode() or '["raised nothing, and ended"]', flush=True)
    os.waitpid(pid, 0)
"""


def mutated(mutation: Mutation, folder: Path) -> Path:
    """Make a copy of the package with the mutation in `folder`; return the folder from which it is imported.

    Raises SettingError naming the mutation if its text is not in its module, or is there more than once.
    """
    text = text_files.mutated(PACKAGE / mutation.module, mutation.old, mutation.new, mutation.name)
    copy = folder / mutation.name
    # With the bytecode, which stays valid: the times of the files are kept.
    shutil.copytree(PACKAGE, copy / "experiments", ignore=shutil.ignore_patterns("designs", "postman"))
    (copy / "experiments" / mutation.module).write_text(text, encoding="utf-8")
    return copy


def write_cases(names: Iterable[str], folder: Path) -> None:
    """Write the runs of the check set with these names, and their second reading."""
    folder.mkdir(parents=True, exist_ok=True)
    run = make_run(measured_triggers=MEASURED_TRIGGERS)
    for name in dict.fromkeys(names):
        frames, about = (run.frames, run.manifest) if name == CLEAN else planted(FAULTS[name], run)
        second = read_frames(frames, run.parameters, about)
        check_set.write(check_set.Case(name, dict(frames), run.parameters, about, second), folder)


@contextmanager
def checking() -> Iterator[Checks]:
    """Run the process that forks for each check."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        # The copy comes first, then the packages that are not copied.
        env={**clean_environment(), "PYTHONPATH": str(PACKAGE.parent)},
        cwd=PACKAGE.parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Checks(process.stdin, process.stdout)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


class Checks:
    """Checks one after the other; `checking` makes it."""

    def __init__(self, asking: IO[str], answers: IO[str]) -> None:
        self._asking = asking
        self._answers = answers

    def found(self, copy: Path, cases: Path, names: Iterable[str]) -> list[str]:
        """Return what the check set finds in the copy. Raises EmoStreamError if the process has ended."""
        try:
            print(json.dumps([str(copy), str(cases), list(names)]), file=self._asking, flush=True)
            return [str(name) for name in json.loads(self._answers.readline())]
        except (OSError, ValueError) as error:
            raise EmoStreamError(f"the process that checks mutations ended ({error}): see its message above") from error


def of_analysis(mutation: Mutation, checks: Checks, folder: Path, cases: Path) -> Outcome:
    """Check one mutation of the analysis; `write_cases` has written what shows it."""
    copy = mutated(mutation, folder)
    found = checks.found(copy, cases, mutation.on)
    shutil.rmtree(copy)
    # One wrong figure leads to others: they are no wrong names.
    return Outcome.of(mutation, "source", found, found)


def of_live_run(mutation: Mutation, folder: Path, servers: str) -> Outcome:
    """Check one mutation of the load or the receivers: the whole run is carried out by the copy."""
    copy = mutated(mutation, folder)
    words = [mutation.live, str(folder / f"{mutation.name}-run"), servers]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.instrument.live", *words],
        cwd=copy,
        env={**clean_environment(), "PYTHONPATH": os.pathsep.join((str(copy), str(PACKAGE.parent)))},
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise EmoStreamError(f"the run of the mutation {mutation.name} failed: see its message above")
    names = [str(name) for name in json.loads(done.stdout.splitlines()[-1])]
    if mutation.live != CLEAN and not set(TWIN[mutation.live].expected) <= set(names):
        names.append(mutation.live)
    shutil.rmtree(copy)
    return Outcome.of(mutation, "source", names, names)
