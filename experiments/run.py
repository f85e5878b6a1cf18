"""One measured run: start or attach to a chain, load it, receive, read Kafka back, write the report."""

from __future__ import annotations

import fcntl
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from experiments import chain, ledger, manifest, topic
from experiments.analysis import Analysis, analyse
from experiments.report import write
from experiments.schedule import NS_PER_S, poisson_plan, user_names
from pipeline.buses.bus import Reader
from pipeline.buses.kafka_bus import KafkaBus
from pipeline.errors import EmoStreamError, SettingError
from pipeline.jars import default_cache_dir
from pipeline.messages import decode_window
from pipeline.topics import Topics, topics

# Between writing the plan and its first send: time to start the sender and read it.
LEAD_S = 4.0
CONNECT_S = 60.0
# Windows that a slow chain may still need after the load has ended before the rest counts as lost.
DRAIN_TRIGGERS = 5


@dataclass(frozen=True)
class Parameters:
    """What a run varies. The chain's own settings apply only to a chain that the run starts."""

    users: int = 100
    rate_per_s: float = 100.0
    clients: int = 100
    warm_up_triggers: int = 5
    measured_triggers: int = 20
    popularity: str = "zipf"
    seed: int = 1
    attach: str = ""
    clusters: int = 2
    subscribers: int = 2
    trigger_s: float = 6.0
    group_size: int = 10
    flush_ms: int = 500
    flush_phase: str = "aligned"
    flush_lead_ms: int = 50
    ack: str = "async"
    ingest_workers: int = 2

    def __post_init__(self) -> None:
        for name in ("users", "clients", "warm_up_triggers", "measured_triggers"):
            if getattr(self, name) < 1:
                raise SettingError(f"parameter {name} is {getattr(self, name)!r}: give 1 or more")
        if not self.rate_per_s > 0:
            raise SettingError(f"parameter rate_per_s is {self.rate_per_s!r}: give more than 0 reactions a second")

    def of_chain(self) -> dict[str, object]:
        """The parameters that are settings of the chain."""
        ours = (
            "users",
            "rate_per_s",
            "clients",
            "warm_up_triggers",
            "measured_triggers",
            "popularity",
            "seed",
        )
        settings: dict[str, object] = {
            name: value for name, value in asdict(self).items() if name not in (*ours, "attach")
        }
        # The load's own rate a user is a matter of the design, not of politeness.
        return {**settings, "rate_per_user_s": 0}

    @property
    def load_s(self) -> float:
        """How long the load lasts, seconds."""
        return (self.warm_up_triggers + self.measured_triggers) * self.trigger_s


PARAMETERS = tuple(field.name for field in fields(Parameters))


@dataclass(frozen=True)
class Result:
    """A finished run: its directory, its report and what the report is made of."""

    run_dir: Path
    report: Path
    analysis: Analysis
    ready_s: float


def measure(parameters: Parameters, run_dir: Path) -> Result:
    """Carry out one run and write everything about it into `run_dir`.

    Raises EmoStreamError when the chain, the load or the receivers could not do their part; what was recorded
    until then stays in `run_dir`.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    about = manifest.manifest(asdict(parameters))
    with ExitStack() as stack:
        about["other_run"] = stack.enter_context(_alone())
        steps = stack.enter_context(_progress(parameters))
        steps("starting the chain", 0)
        endpoints = (
            chain.attached(Path(parameters.attach))
            if parameters.attach
            else stack.enter_context(chain.started(parameters.of_chain(), run_dir / "chain"))
        )
        about["ready_s"] = endpoints.ready_s
        bus = KafkaBus(endpoints.bootstrap_servers)
        stack.callback(bus.close)
        names = topics(chain.settings_of(endpoints))
        # On a chain that is up, only what this run adds is its own.
        since = {name: bus.ends(name) for name in _read_back(names)}
        with manifest.ClockWatch() as clock:
            _drive(parameters, endpoints, bus, names, run_dir, steps)
        about["clock_samples"] = clock.samples
        steps("reading Kafka back", 0)
        frames = _collect(bus, names, since, run_dir)
    (run_dir / "manifest.json").write_text(json.dumps(about, indent=1) + "\n")
    analysis = analyse(frames, asdict(parameters), about)
    analysis.reactions.to_parquet(run_dir / "reactions.parquet", index=False)
    report = write(run_dir, analysis, asdict(parameters), about)
    return Result(run_dir, report, analysis, endpoints.ready_s)


def _drive(
    parameters: Parameters,
    endpoints: chain.Endpoints,
    bus: KafkaBus,
    names: Topics,
    run_dir: Path,
    steps: Callable[[str, float], None],
) -> None:
    """Connect the audience, send the load, wait until the last reaction's window has reached everyone."""
    steps("connecting clients", 0)
    windows = bus.reader(names.aggregates.name, bus.ends(names.aggregates.name))
    audience = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "experiments.receivers",
            endpoints.registry,
            str(parameters.clients),
            str(run_dir),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    sender = None
    try:
        assert audience.stdin is not None and audience.stdout is not None
        if audience.stdout.readline().strip() != "ready":
            raise EmoStreamError("the receivers could not connect: their own message stands above")
        plan = poisson_plan(
            user_names(parameters.users),
            parameters.rate_per_s,
            time.time_ns() + round(LEAD_S * NS_PER_S),
            trigger_s=parameters.trigger_s,
            warm_up_triggers=parameters.warm_up_triggers,
            measured_triggers=parameters.measured_triggers,
            seed=parameters.seed,
            weights=parameters.popularity,
        )
        plan.to_parquet(run_dir / "plan.parquet", index=False)
        sender = subprocess.Popen(
            [
                *(sys.executable, "-m", "experiments.load"),
                *(str(run_dir / "plan.parquet"), str(run_dir / "sent.parquet"), endpoints.ingest),
            ]
        )
        first_ns, last_ns = int(plan["t_intended_ns"].iloc[0]), int(plan["t_intended_ns"].iloc[-1])
        warm_ns = int(plan.loc[plan["phase"] == "measured", "t_intended_ns"].iloc[0])
        while sender.poll() is None:
            now_ns = time.time_ns()
            steps("warming up" if now_ns < warm_ns else "measuring", max(0.0, (now_ns - first_ns) / NS_PER_S))
            time.sleep(0.5)
            if now_ns > last_ns + 60 * NS_PER_S:
                raise EmoStreamError("the load did not end a minute after its last reaction was due: see its errors")
        if sender.returncode != 0:
            raise EmoStreamError(f"the load ended with status {sender.returncode}: its own message stands above")
        steps("waiting for the last window", parameters.load_s)
        patience_s = DRAIN_TRIGGERS * parameters.trigger_s
        last = _last_window(bus, windows, names, parameters, patience_s)
        audience.stdin.write(f"until {last} {patience_s:g}\n")
        audience.stdin.flush()
        audience.wait(patience_s + 60)
        if audience.returncode != 0:
            raise EmoStreamError(f"the receivers ended with status {audience.returncode}")
    finally:
        windows.close()
        for process in (sender, audience):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(10)


def _last_window(bus: KafkaBus, windows: Reader, names: Topics, parameters: Parameters, patience_s: float) -> str:
    """Return the id of the window that covers everything now in Kafka.

    The buffer's last flush comes first; where no window comes in time, the last one that did is named, and the
    rest is counted as lost.
    """
    time.sleep(parameters.flush_ms / 1000 + 0.5)
    ends = {p: end for p, end in bus.ends(names.events.name).items() if end}
    deadline_s = time.monotonic() + patience_s
    covered: dict[int, int] = {}
    last = "none:0"
    while time.monotonic() < deadline_s:
        for record in windows.poll(0.2):
            window = decode_window(record.value)
            last = window.event_id
            for key, (_, upto) in window.offsets.items():
                covered[int(key.rpartition("-")[2])] = upto + 1
        if all(covered.get(partition, 0) >= end for partition, end in ends.items()):
            break
    return last


def _read_back(names: Topics) -> tuple[str, ...]:
    return names.events.name, names.aggregates.name, names.progress.name


def _collect(bus: KafkaBus, names: Topics, since: dict[str, dict[int, int]], run_dir: Path) -> dict[str, pd.DataFrame]:
    """Read the topics back and return every frame of the ledger, each written to `run_dir` as well."""
    events, aggregates, progress = (bus.read(name, since[name]) for name in _read_back(names))
    frames = {
        "topic": topic.events(events),
        "windows": topic.windows(aggregates),
        "progress": topic.progress(progress),
    }
    for name, frame in frames.items():
        frame.to_parquet(run_dir / f"{name}.parquet", index=False)
    written = (name for name in ledger.COLUMNS if name not in frames)
    return {**frames, **{name: pd.read_parquet(run_dir / f"{name}.parquet") for name in written}}


@contextmanager
def _alone() -> Iterator[bool]:
    """Yield whether another run is going on on this machine: its figures and ours would spoil each other."""
    path = default_cache_dir(os.environ) / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield True
        else:
            yield False


@contextmanager
def _progress(parameters: Parameters) -> Iterator[Callable[[str, float], None]]:
    """Yield `step(what, seconds of load done)`, shown as a bar over the load's planned length."""
    planned_s = math.ceil(parameters.load_s)
    with tqdm(
        total=planned_s,
        unit="s",
        bar_format="{desc:<28} {bar} {n:3.0f}/{total} s of load, {elapsed} in all",
        file=sys.stderr,
    ) as bar:

        def step(what: str, done_s: float) -> None:
            bar.set_description_str(what, refresh=False)
            bar.n = min(round(done_s), planned_s)
            bar.refresh()

        yield step
