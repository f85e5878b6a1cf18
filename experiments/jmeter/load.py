"""The load of a run by JMeter without a window: a process that carries out the plan and writes its dashboard."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from experiments import environment, files
from experiments.jmeter import samples
from experiments.jmeter.home import make_home
from experiments.jmeter.properties import Properties
from experiments.parameters import AFTER_TRIGGERS, Parameters
from experiments.run.chain import Endpoints, ended
from experiments.run.drive import Steps
from pipeline.errors import EmoStreamError, SettingError

PLAN = Path(__file__).with_name("emostream.jmx")
# Until the JVM, the plan and its checks are ready.
START_S = 6.0
# After the load: the last poll of a viewer, which waits up to 25 s for a window, and the dashboard.
END_S = 90.0
POLL_S = 0.2
STOP_S = 10.0


@dataclass(frozen=True)
class JMeter:
    """JMeter's jars and the Java that runs them."""

    jars: Sequence[Path]
    java: Path

    def load(self, properties: Properties) -> Load:
        """Return the load of a run with these properties."""
        return Load(self, properties)

    def command(self, launcher: Path, *words: str, window: bool = False) -> list[str]:
        """Return the command line that starts JMeter from `launcher` with `words`."""
        return [
            *(str(self.java), "-Xms256m", "-Xmx1g", "-Dfile.encoding=UTF-8", "-Duser.language=en"),
            f"-Djava.awt.headless={'false' if window else 'true'}",
            # Otherwise Java makes a folder in the user's home for what a window remembers.
            f"-Djava.util.prefs.userRoot={launcher.parent}",
            *("-jar", str(launcher), "-t", str(PLAN)),
            *words,
        ]


@dataclass(frozen=True)
class Load:
    """Carries out the plan; as a function it is a load of `experiments.run.measure`."""

    jmeter: JMeter
    properties: Properties

    def __call__(self, parameters: Parameters, endpoints: Endpoints, run_dir: Path, step: Steps) -> None:
        """Let JMeter carry out the plan; leave `plan.parquet`, `sent.parquet`, JMeter's results and its dashboard.

        Raises EmoStreamError with JMeter's own message if it fails or does not end.
        """
        run_dir = run_dir.resolve()
        with tempfile.TemporaryDirectory(prefix="emostream-jmeter-") as scratch:
            launcher = make_home(Path(scratch) / "home", self.jmeter.jars)
            words = self.words(endpoints, run_dir, parameters.trigger_s)
            self._carry_out(self.jmeter.command(launcher, *words), run_dir, parameters, step)
        own = samples.reactions(samples.read(run_dir / "results.jtl"))
        warm_up_s, measured_s = (
            triggers * parameters.trigger_s for triggers in (parameters.warm_up_triggers, parameters.measured_triggers)
        )
        files.to_parquet(samples.plan_frame(own, warm_up_s, measured_s), run_dir / "plan.parquet")
        files.to_parquet(samples.sent_frame(own), run_dir / "sent.parquet")

    def words(self, endpoints: Endpoints, run_dir: Path, trigger_s: float) -> list[str]:
        """Return what follows the plan on JMeter's command line."""
        waits_ms = round(1000 * trigger_s) + 500
        results, log, dashboard = (str(run_dir / name) for name in ("results.jtl", "jmeter.log", "dashboard"))
        settings: Mapping[str, object] = {
            **address("ingest", endpoints.ingest),
            **address("registry", endpoints.registry),
            "sample_variables": ",".join(samples.VARIABLES),
            "jmeter.save.saveservice.subresults": "false",
            # It would listen for commands, on a port that may be taken.
            "jmeterengine.nongui.port": 0,
            "jmeter.reportgenerator.report_title": "EmoStream by JMeter",
            "jmeter.reportgenerator.overall_granularity": 1000,
            # A poll waits for the next window, as it should.
            "jmeter.reportgenerator.apdex_per_transaction": f"GET the next windows:{waits_ms}|{2 * waits_ms}",
        }
        given = [f"-J{name}={value}" for name, value in settings.items()]
        return ["-n", "-l", results, "-j", log, "-e", "-o", dashboard, *given, *self.properties.words()]

    def _carry_out(self, command: list[str], run_dir: Path, parameters: Parameters, step: Steps) -> None:
        log_path = run_dir / "jmeter.out"
        limit_s = START_S + self.properties.duration_s + END_S
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=run_dir,
                env=environment.without_proxies(environment.own(os.environ)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                self._follow(process, limit_s, parameters, step)
            finally:
                if process.poll() is None:
                    process.terminate()
                    ended(process, STOP_S)
        if process.returncode != 0:
            raise EmoStreamError(f"JMeter failed with status {process.returncode}: {reason(log_path)}")

    def _follow(self, process: subprocess.Popen[bytes], limit_s: float, parameters: Parameters, step: Steps) -> None:
        """Report the progress until JMeter has ended. Raises EmoStreamError if it does not within `limit_s`."""
        warm_up_s = parameters.warm_up_triggers * parameters.trigger_s
        begun_s = time.monotonic()
        while process.poll() is None:
            spent_s = time.monotonic() - begun_s
            if spent_s > limit_s:
                raise EmoStreamError(f"JMeter did not end within {limit_s:g} s: see jmeter.log in the run's directory")
            done_s = min(max(0.0, spent_s - START_S), parameters.load_s)
            step("warming up" if done_s < warm_up_s else "measuring", done_s)
            time.sleep(POLL_S)


def address(stage: str, url: str) -> dict[str, object]:
    """Return the plan's properties for the address of a stage."""
    parts = urlsplit(url)
    return {f"{stage}_host": parts.hostname, f"{stage}_port": parts.port or 80}


def phases(properties: Properties, trigger_s: float) -> tuple[int, int]:
    """Return how many whole triggers of a run warm up and are measured: after the ramp-up and at least one trigger, and
    before the last AFTER_TRIGGERS.

    Raises SettingError if no trigger would be measured.
    """
    warm_up = max(1, math.ceil(properties.ramp_up_s / trigger_s))
    measured = int(properties.duration_s / trigger_s - warm_up - AFTER_TRIGGERS)
    if measured < 1:
        raise SettingError(
            f"property duration_s is {properties.duration_s}, and ramp_up_s {properties.ramp_up_s}: give a duration_s "
            f"of at least {math.ceil((warm_up + 1 + AFTER_TRIGGERS) * trigger_s)}, so that one window of "
            f"{trigger_s:g} s can be measured"
        )
    return warm_up, measured


def reason(log_path: Path) -> str:
    """Return why JMeter failed: the plan's own message, or the last line, of what it printed."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    own = [line for line in lines if line.startswith(f"{PLAN.name}: ")]
    return (own or lines or ["it printed nothing"])[-1]
