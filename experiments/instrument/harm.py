"""What is done to real processes while a run is measured: they are stopped, lied to, crowded out, or written past.

Each of these is a context manager: it takes the scene of a run, yields the ready file to which the run attaches, and
leaves no process, thread or variable behind.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import psutil

from experiments import files
from experiments.load.schedule import timestamp_of
from experiments.machine.planted_clock import PlantedClock
from experiments.machine.wrong_clock import sitecustomize
from experiments.run import chain
from experiments.units import NS_PER_MS, NS_PER_S
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.ingest import intake
from pipeline.messages import Event, encode
from pipeline.problems import Refusal

# A run that has not begun by then has failed: its own error is the one to read.
PLAN_S = 90.0
POLL_S = 0.05


@dataclass(frozen=True)
class Scene:
    """Where harm is done: the ready file of a chain or a twin, the folder of the run, and its process ids."""

    ready_file: Path
    run_dir: Path
    pid: int


Harm = Callable[[Scene], AbstractContextManager[Path]]


@contextmanager
def harmless(scene: Scene) -> Iterator[Path]:
    """Do nothing."""
    yield scene.ready_file


def stopped(words: str, for_s: float, at_s: float = 1.0) -> Harm:
    """Return what stops (SIGSTOP) every process whose command line has `words`, `at_s` into the measurement.

    Only processes below this one and below the chain are stopped.
    """

    def stop(scene: Scene) -> None:
        own = [process for pid in (os.getpid(), scene.pid) for process in psutil.Process(pid).children(recursive=True)]
        held = [process for process in dict.fromkeys(own) if words in _command(process)]
        if not held:
            raise EmoStreamError(f"no process says {words!r}: there is nothing to stop")
        for process in held:
            process.send_signal(signal.SIGSTOP)
        time.sleep(for_s)
        for process in held:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    return _during(stop, at_s)


def _during(act: Callable[[Scene], None], at_s: float) -> Harm:
    """Return the harm that does `act` on a thread, `at_s` after the first measured reaction is due."""

    @contextmanager
    def harm(scene: Scene) -> Iterator[Path]:
        failures: list[Exception] = []
        ended = threading.Event()

        def run() -> None:
            try:
                if _await_measurement(scene.run_dir / "plan.parquet", at_s, ended):
                    act(scene)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run, name="harm")
        thread.start()
        try:
            yield scene.ready_file
        finally:
            ended.set()
            thread.join()
        if failures:
            raise failures[0]

    return harm


def _await_measurement(plan_file: Path, at_s: float, ended: threading.Event) -> bool:
    deadline_s = time.monotonic() + PLAN_S
    while True:
        # It is written whole, under another name first.
        if plan_file.exists():
            plan = pd.read_parquet(plan_file)
            break
        if time.monotonic() > deadline_s or ended.wait(POLL_S):
            return False
    begin_ns = int(plan.loc[plan["phase"] == "measured", "t_intended_ns"].iloc[0])
    return not ended.wait(max(0.0, begin_ns / NS_PER_S + at_s - time.time()))


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def crowded(scene: Scene) -> Iterator[Path]:
    """Run a process of nobody's on core 0 that never rests."""
    code = "import os\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {0})\nwhile True: pass"
    with _process([sys.executable, "-c", code]):
        yield scene.ready_file


@contextmanager
def another_measurement(scene: Scene) -> Iterator[Path]:
    """Run what looks like another user's load generator: no descendant of this process, for two minutes at most."""
    sleep = "import time; time.sleep(120)"
    # The one that starts it ends at once, so that the system's first process adopts it.
    command = f"[sys.executable, '-c', {sleep!r}, 'experiments.load']"
    start = f"import subprocess, sys; print(subprocess.Popen({command}, stdout=subprocess.DEVNULL).pid)"
    pid = int(subprocess.run([sys.executable, "-c", start], stdout=subprocess.PIPE, check=True).stdout)
    try:
        yield scene.ready_file
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def _process(command: Sequence[str]) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def wrong_clock(*, slew_ms_per_s: float = 0.0, step_ms: float = 0.0, step_after_s: float = 0.0) -> Iterator[None]:
    """Give this process, and those that it starts meanwhile, a wall clock that slews, or steps once."""
    true_ns, true_s = time.time_ns, time.time
    with tempfile.TemporaryDirectory(prefix="emostream-clock-") as folder:
        clock = PlantedClock(Path(folder) / "clock")
        clock.set(
            begin_ns=time.monotonic_ns() + round(step_after_s * NS_PER_S),
            rate=slew_ms_per_s / 1000,
            step_ns=round(step_ms * NS_PER_MS),
        )
        with clock.for_children():
            time.time_ns = sitecustomize.wrong(str(clock.file), true_ns)
            time.time = lambda: time.time_ns() / NS_PER_S
            try:
                yield
            finally:
                time.time_ns, time.time = true_ns, true_s


def strangers_writing(count: int) -> Harm:
    """Return what writes `count` well-formed records into the chain's topic, past its ingest, while it is measured."""

    def write(scene: Scene) -> None:
        endpoints = chain.attached(scene.ready_file)
        bus = KafkaBus(endpoints.bootstrap_servers)
        try:
            writer = bus.writer()
            for number in range(count):
                moment_ns = time.time_ns()
                event = Event(f"phantom-{number}", "😂", timestamp_of(moment_ns), moment_ns, moment_ns)
                writer.send(topics(chain.settings_of(endpoints)).events.name, encode(event), event.user_id.encode())
            writer.close()
        finally:
            bus.close()

    return _during(write, 2.0)


Rule = Callable[[int, bytes], Sequence[bytes] | int]
"""`rule(number, body)` returns the bodies to pass on for a reaction, or the status to answer without passing it on."""


def lying_proxy(rule: Rule) -> Harm:
    """Return a proxy before ingest that answers 202 for all that it loses, doubles or alters.

    The rule is for requests of one reaction, which are numbered from 0. Arrays and invalid requests pass as they are.
    """

    @contextmanager
    def harm(scene: Scene) -> Iterator[Path]:
        ready = json.loads(scene.ready_file.read_text(encoding="utf-8"))
        server = _Proxy(ready["ingest"], rule)
        thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), name="proxy")
        thread.start()
        ready_file = scene.run_dir.with_name(f"{scene.run_dir.name}-proxied.json")
        files.write_text(ready_file, json.dumps(ready | {"ingest": f"http://127.0.0.1:{server.server_address[1]}"}))
        try:
            yield ready_file
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    return harm


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 4096

    def __init__(self, ingest: str, rule: Rule) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.place = urlsplit(ingest)
        self.rule = rule
        self.lock = threading.Lock()
        self.reactions = 0

    def bodies(self, method: str, path: str, content_type: str, body: bytes) -> Sequence[bytes] | int:
        """Return what the rule makes of a request."""
        if (method, path, content_type) != ("POST", "/reactions", "application/json") or not _is_one_reaction(body):
            return (body,)
        with self.lock:
            number, self.reactions = self.reactions, self.reactions + 1
        return self.rule(number, body)


def _is_one_reaction(body: bytes) -> bool:
    try:
        return len(intake.read(body, 1_000)) == 1
    except Refusal:
        return False


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def setup(self) -> None:
        super().setup()
        self.onward = http.client.HTTPConnection(self.server.place.hostname or "", self.server.place.port, timeout=30)

    def finish(self) -> None:
        super().finish()
        self.onward.close()

    def do_GET(self) -> None:
        """Pass a request on (http.server calls this)."""
        self.do_POST()

    def do_POST(self) -> None:
        """Pass a request on, or lie (http.server calls this)."""
        body, content_type = self.rfile.read(int(self.headers["Content-Length"])), self.headers["Content-Type"]
        told = self.server.bodies(self.command, self.path, content_type, body)
        status = told if isinstance(told, int) else 202
        for each in () if isinstance(told, int) else told:
            self.onward.request(self.command, self.path, each, {"Content-Type": content_type})
            with self.onward.getresponse() as answer:
                answer.read()
                status = answer.status
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, *_: object) -> None:
        """Log nothing (http.server calls this)."""
