"""Measure live runs with planted faults, and clean ones: on twins that share a Kafka, and on a chain."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from experiments.instrument import harm
from experiments.instrument.fault import BESIDE_OTHER_WORK, OF_THE_MACHINE, Outcome, Where, names
from experiments.instrument.live_faults import TWIN, LiveFault
from experiments.parameters import Parameters
from experiments.run import chain
from experiments.run.measure import measure
from experiments.twin import process, settings
from pipeline import lifecycle
from pipeline.errors import EmoStreamError

Machine = Literal["own", "shared"]
# A run that the machine disturbed says nothing about a fault: it is made again, as an INVALID run of a sweep is.
TRIES = 3
# Enough reactions for p99, and enough windows for the growth of the lag, in a few seconds.
TRIGGER_S = 0.5
TWIN_SETTINGS: Mapping[str, Any] = {
    "trigger_s": TRIGGER_S,
    "flush_ms": 100,
    "flush_lead_ms": 50,
    "micro_batch_ms": [60, 80],
    "seed": 7,
}
# Warm-ups of a fixed length: what is done at a moment of the measurement needs the plan beforehand.
TWIN_RUN: Mapping[str, Any] = {
    "users": 40,
    "rate_per_s": 250.0,
    "clients": 20,
    "warm_up_triggers": 2,
    "warm_up_most_triggers": 1,
    # With twelve windows one steady run in twenty is called UNSTEADY.
    "measured_triggers": 20,
}
CHAIN: Mapping[str, Any] = {"trigger_s": 1.0, "clusters": 2, "subscribers": 1, "ingest_workers": 1}
CHAIN_RUN: Mapping[str, Any] = {
    "users": 40,
    "rate_per_s": 150.0,
    "clients": 8,
    "warm_up_triggers": 3,
    "warm_up_most_triggers": 1,
    "measured_triggers": 10,
}
CLEAN_RUN: Mapping[str, Any] = {
    "users": 50,
    "rate_per_s": 100.0,
    "clients": 20,
    # Spark gets faster for half a minute: a measurement that began sooner would not be steady.
    "warm_up_triggers": 30,
    "measured_triggers": 20,
    "trigger_s": 1.0,
    "clusters": 2,
    "subscribers": 1,
    "ingest_workers": 1,
}


@dataclass(frozen=True)
class Place:
    """Where live runs leave their files, their machine ("own" or "shared"), and the Kafka that the twins share.

    `made_again` has, for each run that the machine disturbed, the names of each disturbance.
    """

    folder: Path
    machine: Machine
    bootstrap_servers: str
    made_again: dict[str, list[list[str]]] = field(default_factory=dict)

    def tolerated(self) -> frozenset[str]:
        """Return the names that a machine with other work gives without a fault."""
        return BESIDE_OTHER_WORK if self.machine == "shared" else frozenset()


@contextmanager
def place(folder: Path, machine: Machine) -> Iterator[Place]:
    """Run the Kafka of the twins: in a process that the sampling of CPU time knows as a stage, and not as foreign work.

    Raises EmoStreamError with its last message if it does not start.
    """
    folder = folder.resolve()
    ready_file, log_path = folder / "kafka.json", folder / "kafka.log"
    words = ["--data-dir", str(folder / "kafka"), "--ready-file", str(ready_file)]
    with log_path.open("wb") as log:
        broker = subprocess.Popen(
            [sys.executable, "-m", "pipeline.broker", *words],
            env={**chain.clean_environment(), **lifecycle.as_parent()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not ready_file.exists():
            if broker.poll() is not None:
                raise EmoStreamError(f"Kafka did not start: {chain.last_line(log_path)}")
            time.sleep(chain.POLL_S)
        yield Place(folder, machine, json.loads(ready_file.read_text(encoding="utf-8"))["bootstrap_servers"])
    finally:
        broker.send_signal(signal.SIGTERM)
        chain.ended(broker, chain.STOP_TIMEOUT_S)


def on_twin(faults: Iterable[LiveFault], where: Place, name: str) -> list[Outcome]:
    """Measure one run of a twin with these faults; return an outcome each. They must not contradict each other."""
    faults = list(faults)
    return _outcomes(faults, "twin", _undisturbed(faults, where, name, partial(run_on_twin, faults, where)), where)


def run_on_twin(faults: Sequence[LiveFault], where: Place, name: str) -> tuple[str, ...]:
    """Measure one run of a twin with these faults, or a clean one; return the names that the verdict gives."""
    folder, servers = where.folder / name, where.bootstrap_servers
    planted = settings.build({**TWIN_SETTINGS, **{key: value for fault in faults for key, value in fault.twin.items()}})
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(fault.clock())
        ready_file = stack.enter_context(
            process.running(planted, folder / "twin", bootstrap_servers=servers, topic_prefix=f"{name}-")
        )
        return _measured(faults, ready_file, folder / "run", TWIN_RUN, where)


def on_chain(faults: Iterable[LiveFault], ready_file: Path, where: Place, name: str) -> list[Outcome]:
    """Measure one run of the chain that is up with these faults; return an outcome each."""
    faults = list(faults)

    def run(name: str) -> tuple[str, ...]:
        return _measured(faults, ready_file, where.folder / name / "run", CHAIN_RUN, where)

    return _outcomes(faults, "chain", _undisturbed(faults, where, name, run), where)


@contextmanager
def chain_up(where: Place) -> Iterator[Path]:
    """Run a chain for the faults; yield its ready file."""
    with chain.started({**CHAIN, "rate_per_user_s": 0}, where.folder / "chain"):
        yield where.folder / "chain" / "ready.json"


def clean_chain(where: Place, name: str) -> list[str]:
    """Start a chain for one clean run of half a minute; return the names of the alarms, if there are any."""

    def run(name: str) -> tuple[str, ...]:
        return _quietly(Parameters(**CLEAN_RUN, machine=where.machine), where.folder / name)

    return _alarms(_undisturbed([], where, name, run), where)


def clean_twin(where: Place, name: str) -> list[str]:
    """Measure one clean run of a twin; return the names of the alarms, if there are any."""
    return _alarms(_undisturbed([], where, name, partial(run_on_twin, [], where)), where)


def _undisturbed(
    faults: Iterable[LiveFault], where: Place, name: str, run: Callable[[str], tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the names that `run` gives; one that the machine disturbed, and no fault, is made TRIES times at most."""
    planted = {each for fault in faults for each in (*fault.expected, *fault.also)}
    for number in range(1, TRIES):
        found = run(name if number == 1 else f"{name}-{number}")
        disturbed = [each for each in found if each in OF_THE_MACHINE and each not in planted]
        if not disturbed:
            return found
        where.made_again.setdefault(name, []).append(disturbed)
    return run(f"{name}-{TRIES}")


def _alarms(found: Iterable[str], where: Place) -> list[str]:
    return [name for name in found if name not in where.tolerated()]


def _measured(
    faults: Iterable[LiveFault], ready_file: Path, run_dir: Path, values: Mapping[str, Any], where: Place
) -> tuple[str, ...]:
    changed = dict(itertools.chain.from_iterable(fault.parameters.items() for fault in faults))
    with ExitStack() as stack:
        pid = chain.attached(ready_file).pid
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        for fault in faults:
            ready_file = stack.enter_context(fault.harm(harm.Scene(ready_file, run_dir, pid)))
        parameters = Parameters(**{**values, "machine": where.machine, "attach": str(ready_file), **changed})
        return _quietly(parameters, run_dir)


def _quietly(parameters: Parameters, run_dir: Path) -> tuple[str, ...]:
    """Measure a run; return the names that its verdict gives. Its progress is in a file beside it."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with run_dir.with_suffix(".log").open("w", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        return names(measure(parameters, run_dir, page=False).analysis.verdict)


def _outcomes(faults: Iterable[LiveFault], where: Where, found: Sequence[str], place: Place) -> list[Outcome]:
    """Judge each fault of a run: the names that the others of the run are expected under are not held against it."""
    faults = list(faults)
    outcomes = []
    for fault in faults:
        of_others = {name for other in faults if other is not fault for name in (*other.expected, *other.also)}
        seen = [name for name in found if name in fault.expected or name not in of_others]
        outcomes.append(Outcome.of(fault, where, seen, place.tolerated()))
    return outcomes


def main() -> None:
    """`python -m experiments.instrument.live`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.instrument.live",
        description="Measure one run of a twin with a planted fault; print the names that its verdict gives, as JSON.",
    )
    line.add_argument("fault", choices=("clean", *TWIN), metavar="FAULT", help="a fault on the twin, or clean")
    line.add_argument("folder", type=Path, help="where the run leaves its files")
    line.add_argument("servers", help="the Kafka of the twin, as host:port")
    options = line.parse_args()
    where = Place(options.folder, "shared", options.servers)
    faults = [TWIN[options.fault]] if options.fault in TWIN else []
    try:
        print(json.dumps(run_on_twin(faults, where, options.fault)))
    except EmoStreamError as error:
        sys.exit(f"experiments.instrument.live: {error}")


if __name__ == "__main__":
    main()
