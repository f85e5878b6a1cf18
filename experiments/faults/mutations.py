"""Planted bugs: one change in a copy of the packages, after each of which a scenario has to fail.

A mark that is raised before the flush (`pipeline/forwarding.py`) is not among them, because no scenario can show it. If
a flush fails, the forwarder ends, and its marks with it: the main publisher makes a new one, a cluster's publisher
starts again, and both take their marks from what is in the output. `mark-believes` stands in its place, and a unit test
keeps the order (`test_failed_flush_raises_and_window_is_forwarded_later`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from experiments import text_files
from experiments.faults.apart import Apart
from experiments.repository import ROOT

PACKAGES = ("pipeline", "spark", "experiments")


class Mutation(NamedTuple):
    """A bug: its name, what it is, where, the text that is replaced and its replacement, and the scenario it fails.

    `shows`: what the scenario says of it, for one that is no anomaly of the ledger.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    scenario: str
    shows: str = ""


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
        "            return False\n", "            return True\n", "poison",
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
        "if len(self._waiting) + len(records) > self.limit:", "buffer-full", "reactions waited",
    ),
    Mutation(
        "ids-forgotten", "the ids that were counted are lost when Spark restarts", "spark/job.py",
        "        remembered(spark, values, tail, found.offsets),\n", "        None,\n", "retries-and-kills",
    ),
)  # fmt: skip


def check() -> None:
    """Raise SettingError if the text of a mutation is gone, before hours of scenarios."""
    for mutation in MUTATIONS:
        _mutated(mutation)


def _mutated(mutation: Mutation) -> str:
    return text_files.mutated(ROOT / mutation.file, mutation.old, mutation.new, mutation.name)


@contextmanager
def copy_with(mutation: Mutation) -> Iterator[Path]:
    """Yield a copy of the packages with the bug. Raises SettingError if its text is gone."""
    with tempfile.TemporaryDirectory(prefix="emostream-mutation-") as folder:
        for package in PACKAGES:
            shutil.copytree(ROOT / package, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__"))
        (Path(folder) / mutation.file).write_text(_mutated(mutation), encoding="utf-8")
        yield Path(folder)


def caught(mutation: Mutation, apart: Apart, say: Callable[[str], None]) -> bool:
    """Carry out the mutation's scenario on a copy with the bug; return whether it found it.

    The ledger has to find an anomaly, or the scenario what the mutation shows: a copy that does not start is no catch.
    """
    with copy_with(mutation) as folder:
        done = apart.run([mutation.scenario], 1, full=False, folder=folder)
    found = any(
        outcome.anomalies or (mutation.shows and any(mutation.shows in each for each in outcome.wrong))
        for outcome in done.outcomes
    )
    detail = "".join(f"\n         {line.strip()}" for line in done.lines[-3:])
    say(f"{'caught' if found else 'MISSED'} {mutation.name} ({mutation.what}): {mutation.scenario}{detail}")
    return bool(found)
