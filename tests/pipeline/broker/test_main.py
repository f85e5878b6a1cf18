"""`python -m pipeline.broker`, stopped and killed; nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.broker import data_dir as broker_data
from pipeline.broker import process as broker_process
from pipeline.broker.__main__ import main
from pipeline.errors import PortInUseError
from tests.pipeline.broker.test_data_dir import lay_out
from tests.pipeline.broker.test_embedded import write

REPOSITORY = Path(__file__).resolve().parents[3]
GONE_S = 20


def test_port_in_use_exits_with_1_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the port on which another process listens."""
    with socket.socket() as taken:
        taken.bind((broker_process.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError):
            broker_process.check_port(port)
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            assert main(["--data-dir", str(tmp_path / "kafka"), "--port", str(port)]) == 1
        finally:
            for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
                signal.signal(number, handler)
    assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


@contextmanager
def command(
    *arguments: str, wrap: Callable[[list[str]], list[str]] = list
) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    """Run the command until it is ready; yield its process and the JSON that it printed."""
    line = [sys.executable, "-m", "pipeline.broker", *arguments]
    env = {**os.environ, "EMOSTREAM_PARENT_PID": str(os.getpid())}
    with subprocess.Popen(wrap(line), cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def assert_gone(pids: list[int]) -> None:
    """Fail if one of the processes still runs after GONE_S."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert psutil.wait_procs(processes, GONE_S)[1] == []


@pytest.mark.integration
def test_sigterm_stops_command_and_kafka(tmp_path: Path) -> None:
    """The ready file has the printed line; Kafka shuts down properly and the exit code is 0."""
    lay_out(tmp_path / "kafka", "", True, False)
    ready = tmp_path / "ready.json"
    with command("--data-dir", str(tmp_path / "kafka"), "--ready-file", str(ready)) as (process, about):
        assert json.loads(ready.read_text()) == about
        assert about["data_dir"] == str(tmp_path / "kafka")
        write(about["bootstrap_servers"], "reformatted", [b"one"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(GONE_S) == 0
        assert_gone([about["pid"]])
    assert not (tmp_path / "kafka" / broker_data.PID_FILE).exists()
    assert "shutdown" in (tmp_path / "kafka" / "kafka.log").read_text()


@pytest.mark.integration
def test_kafka_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    """After SIGKILL of the command, the JVM and its watcher end."""
    with command("--data-dir", str(tmp_path)) as (process, about):
        family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert about["pid"] in family
        process.kill()
        process.wait()
        assert_gone(family)


@pytest.mark.integration
def test_command_ends_with_its_parent() -> None:
    """It stops when the parent that EMOSTREAM_PARENT_PID names is killed, and removes its temporary directory."""

    def in_a_shell(line: list[str]) -> list[str]:
        own = "import os, subprocess, sys; os.environ['EMOSTREAM_PARENT_PID'] = str(os.getpid())"
        return [sys.executable, "-c", f"{own}; subprocess.run(sys.argv[1:])", *line]

    with command(wrap=in_a_shell) as (parent, about):
        family = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert about["pid"] in family
        parent.kill()
        assert_gone(family)
    assert not Path(about["data_dir"]).exists()


@pytest.mark.integration
def test_command_exits_with_1_when_kafka_is_killed(tmp_path: Path) -> None:
    """The command ends when the JVM is killed by someone else."""
    with command("--data-dir", str(tmp_path)) as (process, about):
        os.kill(about["pid"], signal.SIGKILL)
        assert process.wait(GONE_S) == 1
