"""Measure live runs with planted faults, and clean ones: on twins that share a Kafka, and on a chain."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.analysis.analyse import Analysis
from experiments.instrument import harm
from experiments.instrument.fault import OF_TIME, Outcome, Where, names
from experiments.instrument.live_faults import LiveFault
from experiments.parameters import Parameters
from experiments.run import chain
from experiments.run.measure import measure
from experiments.twin import process, settings
from pipeline.broker import EmbeddedKafka

Machine = Literal["own", "shared"]
# Enough reactions for p99, and enough windows for the growth of the lag, in a few seconds.
TRIGGER_S = 0.5
TWIN: Mapping[str, Any] = {
    "trigger_s": TRIGGER_S,
    "flush_ms": 100,
    "flush_lead_ms": 50,
    "micro_batch_ms": [60, 80],
    "seed": 7,
}
TWIN_RUN: Mapping[str, Any] = {
    "users": 40,
    "rate_per_s": 250.0,
    "clients": 20,
    "warm_up_triggers": 2,
    "measured_triggers": 12,
}
CHAIN: Mapping[str, Any] = {"trigger_s": 1.0, "clusters": 2, "subscribers": 1, "ingest_workers": 1}
CHAIN_RUN: Mapping[str, Any] = {
    "users": 40,
    "rate_per_s": 150.0,
    "clients": 8,
    "warm_up_triggers": 3,
    "measured_triggers": 10,
}
CLEAN_RUN: Mapping[str, Any] = {
    "users": 50,
    "rate_per_s": 100.0,
    "clients": 20,
    "warm_up_triggers": 5,
    "measured_triggers": 12,
    "trigger_s": 2.0,
    "clusters": 2,
    "subscribers": 1,
    "ingest_workers": 1,
}


@dataclass(frozen=True)
class Place:
    """Where live runs leave their files, their machine ("own" or "shared"), and the Kafka that the twins share."""

    folder: Path
    machine: Machine
    kafka: EmbeddedKafka

    def tolerated(self) -> frozenset[str]:
        """Return the names that a machine with other work gives without a fault."""
        return OF_TIME if self.machine == "shared" else frozenset()


@contextmanager
def place(folder: Path, machine: Machine) -> Iterator[Place]:
    """Run the Kafka of the twins."""
    with EmbeddedKafka(folder / "kafka") as kafka:
        yield Place(folder, machine, kafka)


def on_twin(faults: Iterable[LiveFault], where: Place, name: str) -> list[Outcome]:
    """Measure one run of a twin with these faults; return an outcome each. They must not contradict each other."""
    faults = list(faults)
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(fault.clock())
        ahead_s = max((fault.kafka_ahead_s for fault in faults), default=0.0)
        kafka = (
            stack.enter_context(harm.kafka_ahead(where.folder / f"{name}-kafka", ahead_s)) if ahead_s else where.kafka
        )
        planted = settings.build({**TWIN, **{key: value for fault in faults for key, value in fault.twin.items()}})
        folder, servers = where.folder / name, kafka.bootstrap_servers
        twin = process.running(planted, folder / "twin", bootstrap_servers=servers, topic_prefix=f"{name}-")
        ready_file = stack.enter_context(twin)
        return _outcomes(faults, "twin", _measured(faults, ready_file, folder / "run", TWIN_RUN, where), where)


def on_chain(faults: Iterable[LiveFault], ready_file: Path, where: Place, name: str) -> list[Outcome]:
    """Measure one run of the chain that is up with these faults; return an outcome each."""
    faults = list(faults)
    return _outcomes(
        faults, "chain", _measured(faults, ready_file, where.folder / name / "run", CHAIN_RUN, where), where
    )


@contextmanager
def chain_up(where: Place) -> Iterator[Path]:
    """Run a chain for the faults; yield its ready file."""
    with chain.started({**CHAIN, "rate_per_user_s": 0}, where.folder / "chain"):
        yield where.folder / "chain" / "ready.json"


def clean_chain(where: Place, name: str) -> list[str]:
    """Start a chain for one clean run of half a minute; return the names of the alarms, if there are any."""
    parameters = Parameters(**CLEAN_RUN, machine=where.machine)
    return alarms(_quietly(parameters, where.folder / name), where)


def clean_twin(where: Place, name: str) -> list[str]:
    """Measure one clean run of a twin; return the names of the alarms, if there are any."""
    servers = where.kafka.bootstrap_servers
    planted = settings.build(dict(TWIN))
    with process.running(
        planted, where.folder / name / "twin", bootstrap_servers=servers, topic_prefix=f"{name}-"
    ) as ready_file:
        return alarms(_measured([], ready_file, where.folder / name / "run", TWIN_RUN, where), where)


def alarms(analysis: Analysis, where: Place) -> list[str]:
    """Return the names that the verdict of a clean run gives."""
    return [name for name in names(analysis.verdict) if name not in where.tolerated()]


def _measured(
    faults: Iterable[LiveFault], ready_file: Path, run_dir: Path, values: Mapping[str, Any], where: Place
) -> Analysis:
    changed = dict(itertools.chain.from_iterable(fault.parameters.items() for fault in faults))
    with ExitStack() as stack:
        pid = chain.attached(ready_file).pid
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        for fault in faults:
            ready_file = stack.enter_context(fault.harm(harm.Scene(ready_file, run_dir, pid)))
        parameters = Parameters(**{**values, "machine": where.machine, "attach": str(ready_file), **changed})
        return _quietly(parameters, run_dir)


def _quietly(parameters: Parameters, run_dir: Path) -> Analysis:
    """Measure a run; its progress is in a file beside it."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with run_dir.with_suffix(".log").open("w", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        return measure(parameters, run_dir, page=False).analysis


def _outcomes(faults: Iterable[LiveFault], where: Where, analysis: Analysis, place: Place) -> list[Outcome]:
    """Judge each fault of a run: the names that the others of the run are expected under are not held against it."""
    faults, found = list(faults), names(analysis.verdict)
    outcomes = []
    for fault in faults:
        of_others = {name for other in faults if other is not fault for name in (*other.expected, *other.also)}
        seen = [name for name in found if name in fault.expected or name not in of_others]
        outcomes.append(Outcome.of(fault, where, seen, place.tolerated()))
    return outcomes
