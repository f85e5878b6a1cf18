"""Carry out one measured run: start or attach to a chain, load it, receive, read Kafka back, write the report."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from experiments import files, ledger
from experiments.analysis.analyse import Analysis, analyse
from experiments.load.plan import replayed_from_ms
from experiments.machine import facts, machine_lock
from experiments.machine.clock_watch import ClockWatch
from experiments.machine.scheduling import scheduling
from experiments.parameters import Parameters
from experiments.progress import Progress
from experiments.report.run_page import write
from experiments.repository import REPORTS
from experiments.run import chain, manifest, notebook, read_back, usage
from experiments.run.drive import Load, drive
from experiments.run.quota import Quota
from experiments.run.rehearsal import rehearse
from experiments.run.slowdown import Slowdown
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import Topics, topics

# Before the load the chain and the sender start; after it the last window is awaited and the report written.
START_S = 25.0
END_S = 15.0
# After the fewest that a warm-up lasts, it takes about as long to see that it has ended, and to start the senders.
SETTLING_TRIGGERS = 3


@dataclass(frozen=True)
class Result:
    """A finished run: its directory, its report, and the analysis that the report shows."""

    run_dir: Path
    report: Path
    analysis: Analysis
    ready_s: float


def measure(
    parameters: Parameters,
    run_dir: Path | None = None,
    *,
    load: Load | None = None,
    regenerate: str = "",
    page: bool = True,
) -> Result:
    """Carry out one run and write everything about it into `run_dir`, by default a new directory in reports/single.

    Without `page`, the report with its figures is left out: for runs of which nobody reads one. `load` replaces that of
    the parameters' `loop`; `regenerate` is then the command that carries out such a run.
    Raises EmoStreamError when another measurement runs on this machine, before anything is written or started; and when
    the chain, the load or the receivers fail: everything recorded until then stays in `run_dir`.
    """
    # Refused before a chain starts, not after it. Without a root, a recording is sought from the current directory.
    rehearse(parameters, Path())
    with ExitStack() as whole:
        stack = whole.enter_context(ExitStack())
        stack.enter_context(machine_lock.alone(f"The run {run_dir}" if run_dir else "A run in a notebook"))
        running = chain.attached(Path(parameters.attach)) if parameters.attach else None
        run_dir = run_dir or notebook.new_run(REPORTS / "single")
        with files.writing(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
        about = manifest.manifest(asdict(parameters)) | {
            "run": run_dir.name,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "regenerate": regenerate or parameters.command(),
            **replayed_from_ms(parameters),
            "scheduling_of_load_and_receivers": scheduling(),
        }
        if running is not None:
            # A chain that was up keeps its own settings, whatever the parameters are.
            parameters = running.parameters(parameters)
        progress = whole.enter_context(Progress(expected_s(parameters)))
        # While no chain starts, which would need the cores; and once more later, because one moment in twenty the work
        # took half as long again: another machine of the host was busy.
        work_s = facts.work_s()
        progress.begin("starting the chain" if running is None else "connecting to the chain", START_S)
        endpoints = running or stack.enter_context(chain.started(parameters.of_chain(), run_dir / "chain"))
        about["parameters"] = asdict(parameters)
        about["ready_s"] = endpoints.ready_s
        about["top_n"] = endpoints.settings.get("top_n", 0)
        about["jvm_flags"] = manifest.jvm_flags(endpoints.pid)
        bus = KafkaBus(endpoints.bootstrap_servers)
        stack.callback(bus.close)
        names = topics(chain.settings_of(endpoints))
        # On a chain that was up, only the records from here on are this run's.
        since = {name: bus.ends(name) for name in _read_back(names)}

        def step(activity: str, done_s: float) -> None:
            progress.at(activity, START_S + done_s)

        work_s = min(work_s, facts.work_s())
        steal_s = facts.steal_s()
        slowdown = Slowdown(parameters.slow_stage, parameters.slow_share, [endpoints.pid])
        quota = Quota(parameters.chain_cores, endpoints.pid)
        with ClockWatch() as clock, usage.UsageWatch([endpoints.pid]) as watch, slowdown, quota:
            about["warm_up"] = drive(parameters, endpoints, bus, names, since[names.events.name], run_dir, step, load)
        if slowdown.about:
            about["slowed"] = slowdown.about
        if quota.about:
            about["limited"] = quota.about
        about["clock_samples"] = clock.samples
        about["other_run"] = watch.other_run
        about["steal_s"] = round(facts.steal_s() - steal_s, 3)
        files.to_parquet(watch.frame(), run_dir / "usage.parquet")
        progress.begin("reading Kafka back", END_S / 3)
        frames = _collect(bus, names, since, run_dir)
        progress.begin("stopping the chain" if running is None else "leaving the chain", END_S / 3)
        stack.close()
        about["work_s"] = [work_s, facts.work_again_s(work_s)]
        progress.begin("writing the report", END_S / 3)
        about["frames"] = manifest.frames(run_dir, ledger.COLUMNS)
        files.write_text(run_dir / "manifest.json", json.dumps(about, indent=1) + "\n")
        analysis = analyse(frames, asdict(parameters), about)
        # The analysis lets each reaction's place in the topic go; who reads the file wants it.
        reactions = ledger.join(*(frames[name] for name in ("plan", "sent", "topic", "windows")))
        files.to_parquet(reactions, run_dir / "reactions.parquet")
        report = write(run_dir, analysis, asdict(parameters), about) if page else run_dir
    return Result(run_dir, report, analysis, endpoints.ready_s)


def expected_s(parameters: Parameters) -> float:
    """Return how long a run should take, in seconds."""
    live = parameters.longest_warm_up > parameters.warm_up_triggers
    return START_S + parameters.load_s + (SETTLING_TRIGGERS * parameters.trigger_s if live else 0) + END_S


def _read_back(names: Topics) -> tuple[str, ...]:
    return names.events.name, names.aggregates.name, names.progress.name


def _collect(bus: KafkaBus, names: Topics, since: dict[str, dict[int, int]], run_dir: Path) -> dict[str, pd.DataFrame]:
    """Read the topics back and return every frame of the ledger, each written to `run_dir` as well."""
    events, aggregates, progress = (bus.read(name, since[name]) for name in _read_back(names))
    first = {f"{names.events.name}-{partition}": offset for partition, offset in since[names.events.name].items()}
    frames = {
        "topic": read_back.events(events, read_back.repeats(events, aggregates)),
        "windows": read_back.windows(aggregates, first),
        "progress": read_back.progress(progress),
    }
    for name, frame in frames.items():
        files.to_parquet(frame, run_dir / f"{name}.parquet")
    written = (name for name in ledger.COLUMNS if name not in frames)
    return {**frames, **{name: pd.read_parquet(run_dir / f"{name}.parquet") for name in written}}
