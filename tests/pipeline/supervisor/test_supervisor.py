"""The whole supervisor over small stages: what it reports of starts, deaths and ends, in a file and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.settings import Settings
from pipeline.supervisor import supervisor
from pipeline.supervisor.lock_file import LockFile
from pipeline.supervisor.plan import Stage
from pipeline.supervisor.supervisor import KafkaProbe, Supervisor
from tests.harness.paths import REPOSITORY
from tests.harness.processes import is_gone, run_to_end, running
from tests.harness.waiting import until

# `python -m pipeline up` with other stages: each is a shell command, and Kafka is a bus in memory.
PROGRAM = """
import json, sys
from pipeline import __main__ as command
from pipeline.bus.memory import MemoryBus
from pipeline.supervisor import supervisor
from pipeline.supervisor.plan import Stage

commands, *options = sys.argv[1:]
commands = json.loads(commands)

class Small(Stage):
    @property
    def command(self):
        return ["/bin/sh", "-c", commands[self.name]["command"], *map(str, self.arguments)]

def stages(settings, broker_port, data_dir):
    ports = {"ingest": settings.ingest_port, "registry": settings.registry_port}
    return [Small(name, each["module"], (ports.get(name, 0),)) for name, each in commands.items()]

supervisor.stages = stages
supervisor.java.find_java = supervisor.jars.kafka_classpath = supervisor.jars.spark_connector_jars = lambda: None
supervisor.KafkaBus = lambda *_: MemoryBus()
supervisor.preconditions.check_kafka = lambda _: None
command.main(["up", "--bootstrap-servers", "kafka:1", "--ingest-port", "0", "--registry-port", "0", *options])
"""
# Answers every request 200, as a stage does at /healthz; $0 is the port.
ANSWER = f"""exec {sys.executable} -SEc '
import sys, http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
' $0"""
STAY = "exec sleep 600"
TRACEBACK = f"""{sys.executable} -c 'raise OSError(28, "No space left on device")'; exit 1"""
Stages = dict[str, str]
EVENTS = ["looking for Kafka", "stopping", "stopped"]
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def command(run_dir: Path, stages: Stages, *options: str) -> list[str]:
    """Return the command line of an `up` with these stages (name → shell command)."""
    modules = {name: "spark.job" if name == "spark" else f"pipeline.{name}" for name in stages}
    given = {name: {"command": text, "module": modules[name]} for name, text in stages.items()}
    return [sys.executable, "-c", PROGRAM, json.dumps(given), "--run-dir", str(run_dir), *options]


class Up:
    """A running `up` whose standard error goes to a file."""

    def __init__(self, run_dir: Path, process: subprocess.Popen[str], log: Path) -> None:
        self.run_dir = run_dir
        self.process = process
        self._log = log

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the lines of standard error that are complete, each of which is JSON; those of one event."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        return [line for line in lines if name in ("", line["event"])]

    def await_event(self, event: str, **fields: object) -> dict[str, Any]:
        """Return the first such event."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.events(event) if fields.items() <= line.items()]

        return until(found, f"{event} {fields} is reported")[0]

    def pid(self, stage: str) -> int:
        """Return the process id of a stage."""
        (log,) = self.run_dir.glob(f"logs/{stage}.log")
        for child in psutil.Process(self.process.pid).children():
            if any(file.path == str(log) for file in child.open_files()):
                return child.pid
        raise AssertionError(f"{stage} does not run")

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Send a signal, wait for the end with status 0, and return the standard output."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, self._log.read_text()
        return output


@contextmanager
def up(run_dir: Path, stages: Stages, *options: str, **environment: Any) -> Iterator[Up]:
    """Run an `up`; nothing of it is left afterwards, which the test has to bring about."""
    log = run_dir / "up.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command(run_dir, stages, *options),
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors, text=True, **environment,
        ) as process,
    ):  # fmt: skip
        try:
            yield Up(run_dir, process, log)
            assert process.poll() is not None, "the test has not ended it"
            assert left(run_dir) == []
        finally:
            process.kill()
            for each in left(run_dir):
                each.kill()


def left(run_dir: Path) -> list[psutil.Process]:
    """Return the processes of the stages of an `up` that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EMOSTREAM_RUN_DIR") == str(run_dir) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_each_stage_is_reported_when_it_is_ready_and_output_is_one_line(tmp_path: Path) -> None:
    """Each line names the stage, the seconds since the start and the address; the addresses are printed once."""
    with up(tmp_path, {"ingest": ANSWER, "registry": ANSWER}) as chain:
        chain.await_event("all stages are ready")
        printed = json.loads(chain.end())
    ready = {line["name"]: line for line in chain.events("ready")}
    assert {name: line["address"] for name, line in ready.items()} == {
        "kafka": "kafka:1", "ingest": printed["ingest"], "registry": printed["registry"],
    }  # fmt: skip
    assert all(0 <= line["after_s"] <= printed["ready_s"] for line in ready.values())
    assert [line["event"] for line in chain.events()][-2:] == ["stopping", "stopped"]


def test_death_restart_and_return_are_one_line_each(tmp_path: Path) -> None:
    """The first death too: with the signal's name, how often it died within a minute, and no error if there is none."""
    with up(tmp_path, {"ingest": ANSWER, "registry": ANSWER}) as chain:
        chain.await_event("all stages are ready")
        for number in (1, 2):
            os.kill(chain.pid("ingest"), signal.SIGKILL)
            died = chain.await_event("died", deaths=number)
            assert (died["name"], died["exit"], died["within_s"], died["restarted"]) == ("ingest", "SIGKILL", 60, True)
            assert (died["error"], died["out_of_memory"]) == ("", False)
            until(lambda number=number: len(chain.events("back")) == number, "ingest is back")
        chain.end()
    assert {(line["event"], line["name"]) for line in chain.events("back")} == {("back", "ingest")}
    assert len(chain.events("died")) == 2


def test_stage_that_keeps_dying_ends_the_chain_with_its_error(tmp_path: Path) -> None:
    """Each of its deaths has the line of the exception, not of a stack frame; the last is not restarted."""
    ended = run_to_end(command(tmp_path, {"ingest": ANSWER, "spark": TRACEBACK}))
    lines = ended.stderr.splitlines()
    deaths = [line for line in map(json.loads, lines[:-1]) if line["event"] == "died"]
    error_text = "OSError: [Errno 28] No space left on device"
    assert {(line["name"], line["exit"], line["error"]) for line in deaths} == {("spark", "exit status 1", error_text)}
    assert [(line["deaths"], line["restarted"]) for line in deaths] == [(n, n < 6) for n in range(1, 7)]
    assert lines[-1] == (
        f"pipeline up: spark died 6 times within 60 s: {error_text} (whole log: {tmp_path}/logs/spark.log)"
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert left(tmp_path) == []


def test_chain_that_is_not_ready_names_the_stages_and_their_reasons(tmp_path: Path) -> None:
    """From the log of each that is missing; the stages after it only wait. No traceback."""
    stages = {
        "ingest": f"echo 'WARNING the disk is slow'; {STAY}",
        "registry": ANSWER,
        "spark": f"echo '26/11/29 02:42:53 ERROR Query: no room'; {STAY}",
        "main_publisher": STAY,
    }
    ended = run_to_end(command(tmp_path, stages, "--ready-timeout-s", "3"))
    assert ended.returncode == 1
    *events, error_text = ended.stderr.splitlines()
    assert [json.loads(line)["event"] for line in events] == EVENTS[:1] + 2 * ["ready"] + EVENTS[1:]
    assert error_text.startswith("pipeline up: the chain is not ready after 3 s: ingest does not answer at http://")
    logs = f"{tmp_path}/logs"
    for words in (
        f"/healthz: the disk is slow (whole log: {logs}/ingest.log); spark has not passed on a first window: "
        f"Query: no room (whole log: {logs}/spark.log); waiting for these: main_publisher. ",
        "--ready-timeout-s",
    ):
        assert words in error_text
    assert left(tmp_path) == []


def test_signal_during_the_start_ends_everything_in_order(tmp_path: Path) -> None:
    """SIGHUP is what a closed terminal sends. A second signal changes nothing; no line is a traceback."""
    slow = "trap 'sleep 0.5; exit' TERM; while :; do sleep 0.1; done"
    with ExitStack() as stack:
        chains = {}
        for number in ENDS:
            (tmp_path / number.name).mkdir()
            chains[number] = stack.enter_context(up(tmp_path / number.name, {"ingest": slow, "spark": slow}))
        for number, chain in chains.items():
            until(lambda run_dir=chain.run_dir: len(left(run_dir)) >= 2, "both stages have started")
            chain.process.send_signal(number)
            assert chain.await_event("stopping")["why"] == number.name
        for chain in chains.values():
            assert chain.end(signal.SIGINT) == ""
            events = [line["event"] for line in chain.events() if line["event"] != "ready"]
            assert [event for event in events if event != "stopping already"] == EVENTS


def test_interrupt_before_the_first_stage_ends_in_one_line(tmp_path: Path) -> None:
    """While the jars are downloaded, for instance. The status is the one of an interrupted command."""
    program = PROGRAM.replace("= lambda: None\n", "= lambda: (print(1, flush=True), __import__('time').sleep(600))\n")
    with ExitStack() as stack:
        for number in ENDS:
            line = [sys.executable, "-c", program, "{}", "--run-dir", str(tmp_path / number.name)]
            process = stack.enter_context(
                subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            process.send_signal(number)
            assert process.communicate(timeout=240)[1].splitlines()[1:] == ["pipeline up: interrupted"]
            assert process.returncode == 130


def test_nohup_keeps_a_chain_running_when_the_terminal_closes(tmp_path: Path) -> None:
    """SIGHUP is ignored if it was ignored at the start; it restarts nothing either."""
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with up(tmp_path, {"ingest": ANSWER, "registry": ANSWER}, **ignored) as chain:
        chain.await_event("all stages are ready")
        pid = chain.pid("ingest")
        chain.process.send_signal(signal.SIGHUP)
        os.kill(chain.pid("registry"), signal.SIGKILL)
        chain.await_event("back", name="registry")
        assert chain.pid("ingest") == pid
        chain.end()


def test_terminal_gets_readable_lines(tmp_path: Path) -> None:
    """One line per event: seconds, stage, what happened; no JSON but the one line of addresses, and no colour."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(tmp_path, {"ingest": ANSWER, "registry": ANSWER}),
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        text = ""

        def shown(words: str) -> str:
            nonlocal text
            while words not in text:
                text += os.read(ours, 65536).decode()
            return text

        try:
            shown("all stages are ready")
            for each in left(tmp_path):
                each.kill()
            shown("back ")
            process.terminate()
            shown("stopped")
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(ours)
    lines = text.replace("\r\n", "\n").splitlines()
    assert any(line.split()[1:4] == ["s", "ingest", "ready"] for line in lines)
    died = next(line for line in lines if " ingest " in line and " died " in line)
    assert died.endswith("died       SIGKILL; restarted; its log has no error")
    assert "{" not in text
    assert "\x1b" not in text


def test_closed_terminal_ends_the_chain(tmp_path: Path) -> None:
    """The terminal is gone: the chain gets SIGHUP, cannot write its lines any more, and ends all the same."""
    pid, ours = pty.fork()
    if pid == 0:
        os.chdir(REPOSITORY)
        line = command(tmp_path, {"ingest": ANSWER, "registry": ANSWER}, "--ready-file", str(tmp_path / "ready"))
        os.execv(line[0], line)
    try:
        until((tmp_path / "ready").exists, "the chain is ready")
    finally:
        os.close(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert left(tmp_path) == []


class Published:
    """Takes the line that a lock file would hold."""

    def publish(self, line: str) -> None:
        """Do nothing."""


@pytest.mark.parametrize("terminal", [True, False])
def test_person_gets_the_page_below_the_json(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, and only where standard output is a terminal: a program reads one line."""
    monkeypatch.setattr("os.isatty", lambda descriptor: terminal and descriptor == 1)
    endpoints = {"registry": "http://127.0.0.1:8080", "ready_s": 1.0}
    supervisor.Supervisor(Settings(), None, 1.0)._publish(endpoints, cast(LockFile, Published()))
    output = capsys.readouterr()
    assert json.loads(output.out.splitlines()[-1]) == endpoints
    line = "page: http://127.0.0.1:8080/  operations: http://127.0.0.1:8080/ops  Ctrl-C stops"
    assert (line in output.err.splitlines()) == terminal


def test_workers_of_a_stage_that_hangs_die_with_it(tmp_path: Path) -> None:
    """A worker that is stopped would not see its main process end, and keep the port of the next one."""
    main = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
    arbiter = SimpleNamespace(plan=[Stage("registry", "pipeline.registry")])
    with running([sys.executable, "-c", main]) as process:
        (worker,) = until(psutil.Process(process.pid).children, "the worker runs")
        arbiter.get_watcher = lambda name: SimpleNamespace(processes={process.pid: process})
        for each in (psutil.Process(process.pid), worker):
            each.suspend()
        Supervisor(Settings(), None, 1.0)._kill(cast(Any, arbiter), "registry")
        assert process.wait(60) == -signal.SIGKILL
        until(lambda: is_gone(worker.pid), "the worker is gone")


def test_kafka_answers_if_a_topic_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error means that it does not: a stage that waits for it must not be replaced."""
    bus = MemoryBus()
    monkeypatch.setattr(supervisor, "KafkaBus", lambda *_: bus)
    probe = KafkaProbe(Settings())
    assert not probe.answers()
    bus.ensure(topics(Settings()).aggregates)
    assert probe.answers()
