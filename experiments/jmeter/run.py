"""`python -m experiments jmeter`: one run by JMeter, its dashboard, and the ledger's audit of it."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import files
from experiments.jmeter import audit, samples
from experiments.jmeter.home import jar_set, make_home
from experiments.jmeter.load import JMeter, phases
from experiments.jmeter.properties import Properties
from experiments.machine import machine_lock
from experiments.parameters import Parameters
from experiments.report import pages
from experiments.report.format import plain
from experiments.run import benchmark_file, chain, notebook
from experiments.run.measure import Result, measure
from pipeline.jars import cached_jars
from pipeline.java import find_java

# Those who watch beside JMeter's own viewers; from them the report has the time from tap to screen.
CLIENTS = 20


@dataclass(frozen=True)
class Run:
    """A finished run by JMeter: its figures, what is wrong with them, and its pages."""

    figures: Mapping[str, Any]
    faults: list[str]
    page: Path
    dashboard: Path
    result: Result


def found() -> JMeter:
    """Return JMeter, downloaded on first use. Raises JavaError and JarsError."""
    java = find_java()
    # A download takes a while, and is the only thing that this logger says.
    logging.getLogger("pipeline.jars").setLevel(logging.INFO)
    return JMeter(cached_jars(jar_set()), java.path)


def run(properties: Properties, attach: str, reports: Path) -> Run:
    """Carry out one run by JMeter into a new directory below `reports`/jmeter, and write `reports`/bench/jmeter.json.

    `attach` is the ready file of a chain that is up; without one a chain is started. Raises EmoStreamError if JMeter,
    Java or the chain is missing or fails, before anything starts where that can be known.
    """
    parameters = parameters_of(properties, attach)
    load = found().load(properties)
    with machine_lock.alone("A run by JMeter"):
        run_dir = notebook.new_run(reports / "jmeter")
        result = measure(parameters, run_dir, load=load, regenerate=properties.command(attach))
    recorded = samples.read(run_dir / "results.jtl")
    windows = pd.read_parquet(run_dir / "windows.parquet")
    figures = audit.figures(recorded, result.analysis.reactions, windows, result.analysis.summary)
    faults = audit.faults(figures)
    about = asdict(properties)
    page = run_dir / "index.html"
    files.write_text(
        page,
        pages.render(
            "jmeter.html",
            figures=figures,
            faults=faults,
            labels=pages.records(audit.by_label(recorded)),
            failures=pages.records(audit.failures(recorded)),
            properties={name: plain(value) for name, value in about.items()},
            run=run_dir.name,
            command=properties.command(attach),
        ),
    )
    benchmark_file.write(reports / "bench", "jmeter", {**figures, "properties": about})
    return Run(figures, faults, page, run_dir / "dashboard" / "index.html", result)


def parameters_of(properties: Properties, attach: str) -> Parameters:
    """Return the parameters of a run by JMeter. Raises SettingError if `attach` names no chain that is up."""
    trigger_s = float(chain.attached(Path(attach)).settings["trigger_s"]) if attach else Parameters().trigger_s
    warm_up, measured = phases(properties, trigger_s)
    return Parameters(
        loop="closed",
        users=properties.users,
        think_s=max(properties.cycle_s, 0.001),
        clients=CLIENTS,
        warm_up_triggers=warm_up,
        measured_triggers=measured,
        trigger_s=trigger_s,
        attach=attach,
    )


def window() -> int:
    """Open the plan in JMeter's own window until that is closed; return JMeter's exit status.

    Raises JavaError and JarsError.
    """
    jmeter = found()
    with tempfile.TemporaryDirectory(prefix="emostream-jmeter-") as scratch:
        launcher = make_home(Path(scratch) / "home", jmeter.jars)
        log = str(Path(scratch) / "jmeter.log")
        return subprocess.run(jmeter.command(launcher, "-j", log, window=True), check=False, cwd=scratch).returncode
