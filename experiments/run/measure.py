"""Carry out one measured run: start or attach to a chain, load it, receive, read Kafka back, write the report."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from experiments import files, ledger
from experiments.analysis import verdict
from experiments.analysis.analyse import Analysis, analyse
from experiments.load import sender_processes
from experiments.load.plan import plan_of
from experiments.parameters import Parameters
from experiments.report.run_page import write
from experiments.repository import REPORTS
from experiments.run import chain, machine_lock, manifest, notebook, read_back, usage
from experiments.run.drive import Steps, drive
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import Topics, topics
from pipeline.settings import build

# Where at least this many reactions are expected, the chance that none is measured is practically zero.
FEW = 100


@dataclass(frozen=True)
class Result:
    """A finished run: its directory, its report, and the analysis that the report shows."""

    run_dir: Path
    report: Path
    analysis: Analysis
    ready_s: float


def check(parameters: Parameters) -> None:
    """Raise SettingError for parameters that cannot work. It starts and writes nothing."""
    verdict.objectives(parameters.limits())
    if parameters.attach:
        parameters = replace(parameters, **chain.attached(Path(parameters.attach)).settings)
    else:
        build(parameters.of_chain())
    few = parameters.rate_per_s * parameters.measured_triggers * parameters.trigger_s < FEW
    # To plan many reactions takes seconds.
    if parameters.loop == "open" and (few or parameters.arrivals == "trace"):
        plan_of(parameters, 0)


def measure(parameters: Parameters, run_dir: Path | None = None) -> Result:
    """Carry out one run and write everything about it into `run_dir`, by default a new directory in reports/single.

    Raises EmoStreamError when another measurement runs on this machine, before anything is written or started; and when
    the chain, the load or the receivers fail: everything recorded until then stays in `run_dir`.
    """
    check(parameters)
    with ExitStack() as stack:
        stack.enter_context(machine_lock.alone(f"The run {run_dir}" if run_dir else "A run in a notebook"))
        run_dir = run_dir or notebook.new_run(REPORTS / "single")
        with files.writing(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
        about = manifest.manifest(asdict(parameters)) | {
            "run": run_dir.name,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "regenerate": parameters.command(),
            "generator_scheduling": sender_processes.scheduling(),
        }
        steps = stack.enter_context(_progress(parameters))
        steps("starting the chain", 0)
        endpoints = (
            chain.attached(Path(parameters.attach))
            if parameters.attach
            else stack.enter_context(chain.started(parameters.of_chain(), run_dir / "chain"))
        )
        # A chain that was up keeps its own settings, whatever the parameters are.
        parameters = replace(parameters, **endpoints.settings)
        about["parameters"] = asdict(parameters)
        about["ready_s"] = endpoints.ready_s
        bus = KafkaBus(endpoints.bootstrap_servers)
        stack.callback(bus.close)
        names = topics(chain.settings_of(endpoints))
        # On a chain that was up, only the records from here on are this run's.
        since = {name: bus.ends(name) for name in _read_back(names)}
        with manifest.ClockWatch() as clock, usage.UsageWatch([endpoints.pid]) as watch:
            drive(parameters, endpoints, bus, names, since[names.events.name], run_dir, steps)
        about["clock_samples"] = clock.samples
        about["other_run"] = watch.other_run
        files.to_parquet(watch.frame(), run_dir / "usage.parquet")
        steps("reading Kafka back", parameters.load_s)
        frames = _collect(bus, names, since, run_dir)
    files.write_text(run_dir / "manifest.json", json.dumps(about, indent=1) + "\n")
    analysis = analyse(frames, asdict(parameters), about)
    files.to_parquet(analysis.reactions, run_dir / "reactions.parquet")
    report = write(run_dir, analysis, asdict(parameters), about)
    return Result(run_dir, report, analysis, endpoints.ready_s)


def _read_back(names: Topics) -> tuple[str, ...]:
    return names.events.name, names.aggregates.name, names.progress.name


def _collect(bus: KafkaBus, names: Topics, since: dict[str, dict[int, int]], run_dir: Path) -> dict[str, pd.DataFrame]:
    """Read the topics back and return every frame of the ledger, each written to `run_dir` as well."""
    events, aggregates, progress = (bus.read(name, since[name]) for name in _read_back(names))
    first = {f"{names.events.name}-{partition}": offset for partition, offset in since[names.events.name].items()}
    frames = {
        "topic": read_back.events(events),
        "windows": read_back.windows(aggregates, first),
        "progress": read_back.progress(progress),
    }
    for name, frame in frames.items():
        files.to_parquet(frame, run_dir / f"{name}.parquet")
    written = (name for name in ledger.COLUMNS if name not in frames)
    return {**frames, **{name: pd.read_parquet(run_dir / f"{name}.parquet") for name in written}}


@contextmanager
def _progress(parameters: Parameters) -> Iterator[Steps]:
    """Yield `step(activity, seconds of load done)`, which shows a bar over the load's planned length."""
    planned_s = math.ceil(parameters.load_s)
    with tqdm(
        total=planned_s,
        unit="s",
        bar_format="{desc:<28} {bar} {n:3.0f}/{total} s of load, {elapsed} in total",
        file=sys.stderr,
    ) as bar:

        def step(activity: str, done_s: float) -> None:
            bar.set_description_str(activity, refresh=False)
            bar.n = min(round(done_s), planned_s)
            bar.refresh()

        yield step
