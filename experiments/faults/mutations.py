"""Planted bugs: one change in a copy of the packages, after each of which a scenario has to fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from experiments.repository import ROOT
from experiments.run.chain import clean_environment
from pipeline.errors import SettingError

PACKAGES = ("pipeline", "spark", "experiments")
TIMEOUT_S = 600.0


class Mutation(NamedTuple):
    """A bug: its name, what it is, where, the text that is replaced and its replacement, and the scenario it fails."""

    name: str
    what: str
    file: str
    old: str
    new: str
    scenario: str


MUTATIONS = (
    Mutation(
        "accepted-early", "202 is answered before the reactions are in the buffer", "pipeline/ingest/reactions.py",
        "return Taken(records, self.buffer.add(records))",
        "flushed: Future[Mapping[bytes, str]] = Future()\n            flushed.set_result({})\n"
        "            __import__('threading').Timer(0.3, self.buffer.add, (records,)).start()\n"
        "            return Taken(records, flushed)",
        "ingest-killed",
    ),
    Mutation(
        "refusal-ignored", "a refused record does not fail the durable answer", "pipeline/ingest/reactions.py",
        "if reasons := [refused[record] for record in self.records if record in refused]:", "if reasons := []:",
        "kafka-refuses",
    ),
    Mutation(
        "mark-off-by-one", "the last window is forwarded again", "pipeline/messages.py",
        "return mark is None or window.window > mark[0]", "return mark is None or window.window >= mark[0]",
        "spark-at-emitted",
    ),
    Mutation(
        "mark-believes", "a window with any number raises the mark", "pipeline/messages.py",
        "if window.window - number <= JUMP_MAX:", "if True:", "poison",
    ),
    Mutation(
        "not-flushed", "Spark commits before Kafka has the window", "spark/emitter.py",
        "            self._writer.flush()\n", "", "spark-killed-without-kafka",
    ),
    Mutation(
        "resume-off-by-one", "a publisher resumes one window too late", "pipeline/forwarding.py",
        "hop.offset + 1 for hop", "hop.offset + 2 for hop", "publishers-killed",
    ),
    Mutation(
        "limit-ignored", "what is being flushed does not count towards buffer_max", "pipeline/ingest/buffer.py",
        "if len(self._waiting) + self._in_flight + len(records) > self.limit:",
        "if len(self._waiting) + len(records) > self.limit:", "buffer-full",
    ),
    Mutation(
        "ids-forgotten", "the ids that were counted are lost when Spark restarts", "spark/job.py",
        "        remembered(spark, values, bus),\n", "", "retries-and-kills",
    ),
)  # fmt: skip
"""Each is caught if its scenario has something wrong."""


@contextmanager
def copy_with(mutation: Mutation) -> Iterator[Path]:
    """Yield a copy of the packages with the bug. Raises SettingError if its text is gone."""
    with tempfile.TemporaryDirectory(prefix="emostream-mutation-") as folder:
        for package in PACKAGES:
            shutil.copytree(ROOT / package, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__"))
        path = Path(folder) / mutation.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutation.old) != 1:
            raise SettingError(
                f"the mutation {mutation.name} replaces {mutation.old!r} in {mutation.file}, which has it "
                f"{text.count(mutation.old)} times: bring it up to date"
            )
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        yield Path(folder)


def caught(mutations: Sequence[Mutation], say: Callable[[str], None]) -> list[str]:
    """Carry out the scenario of each mutation on a copy with the bug; return the names of those that it found."""
    found = []
    for mutation in mutations:
        with copy_with(mutation) as folder:
            done = subprocess.run(
                [sys.executable, "-m", "experiments.faults", mutation.scenario],
                cwd=folder, env={**clean_environment(), "PYTHONPATH": str(folder)}, capture_output=True,
                encoding="utf-8", timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        # The scenario's own verdict: a copy that does not even start is no catch.
        if "WRONG" in done.stdout:
            found.append(mutation.name)
        verdict = "caught" if "WRONG" in done.stdout else "MISSED"
        say(f"{verdict} {mutation.name} ({mutation.what}): {mutation.scenario}{_detail(done)}")
    return found


def _detail(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout if "WRONG" in done.stdout else done.stdout + done.stderr).strip().splitlines()
    return "".join(f"\n         {line.strip()}" for line in lines[-3:])
