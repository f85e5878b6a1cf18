"""`python -m pipeline up`: it restarts what dies and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.bus.kafka import KafkaBus
from pipeline.messages import decode_window

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

READY_S = 120.0
GONE_S = 30.0
OPTIONS = ("--ingest-port", "0", "--registry-port", "0", "--trigger-s", "1", "--clusters", "1", "--subscribers", "1")


def _await(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def _command(run_dir: Path, *options: str) -> list[str]:
    ready = str(run_dir / "ready.json")
    return [
        *(sys.executable, "-m", "pipeline", "up", "--run-dir", str(run_dir), "--ready-file", ready),
        *(OPTIONS + options),
    ]


def _ready(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "ready.json"
    _await(path.exists, READY_S, f"the chain in {run_dir} is ready")
    said: dict[str, Any] = json.loads(path.read_text())
    return said


def _processes(run_dir: Path) -> list[psutil.Process]:
    """Every process of the chain in `run_dir`: by its environment or its command line."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join([*process.cmdline(), process.environ().get("EMOSTREAM_RUN_DIR", "")])
        except psutil.Error:
            continue
        if str(run_dir) in words and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@contextmanager
def _up(run_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    run_dir.mkdir(exist_ok=True)
    with (run_dir / "up.log").open("wb") as log, subprocess.Popen(_command(run_dir), stdout=log, stderr=log) as up:
        try:
            yield up
        finally:
            if up.poll() is None:
                up.kill()
            for process in _processes(run_dir):
                process.kill()


def _post(ingest: str, user_id: str) -> int:
    body = json.dumps({"user_id": user_id, "emoji_type": "🎉", "timestamp": "2026-11-23T21:00:00Z"}).encode()
    request = urllib.request.Request(f"{ingest}/reactions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


def _total(said: dict[str, Any], topic: str) -> int:
    """The reactions in every window of `topic`, each window once however often it stands there."""
    bus = KafkaBus(said["bootstrap_servers"])
    try:
        windows = [decode_window(record.value) for record in bus.read(topic)]
    finally:
        bus.close()
    assert len({window.event_id for window in windows}) == len(windows)
    return sum(window.total for window in windows)


def test_stages_that_die_come_back_and_nothing_is_lost(tmp_path: Path) -> None:
    """After Spark, both publishers and a subscriber are killed, all reactions reach the feed once; SIGTERM ends all."""
    run_dir = tmp_path / "chain"
    with _up(run_dir) as up:
        said = _ready(run_dir)
        for number in range(20):
            assert _post(said["ingest"], f"before-{number}") == 202
        victims = [
            process
            for process in _processes(run_dir)
            if {"spark.job", "pipeline.main_publisher", "pipeline.cluster_publisher", "pipeline.subscriber"}
            & set(process.cmdline())
        ]
        assert len(victims) == 4
        for process in victims:
            process.kill()
        for number in range(20):
            assert _post(said["ingest"], f"after-{number}") == 202
        _await(lambda: _total(said, "cluster-1-feed") == 40, 60, "all 40 reactions are in the feed, once")
        up.send_signal(signal.SIGTERM)
        assert up.wait(GONE_S) == 0
        _await(lambda: not _processes(run_dir), 1, "no process is left")
        assert not (run_dir / "ready.json").exists()


def test_sigkill_leaves_no_child_running(tmp_path: Path) -> None:
    """When `up` is killed outright every process of the chain, the two Java ones included, is gone soon after."""
    run_dir = tmp_path / "chain"
    with _up(run_dir) as up:
        _ready(run_dir)
        assert len([p for p in _processes(run_dir) if "java" in p.name()]) == 2
        up.send_signal(signal.SIGKILL)
        up.wait(5)
        _await(lambda: not _processes(run_dir), GONE_S, "no process is left")


def test_the_end_of_its_parent_takes_everything_down(tmp_path: Path) -> None:
    """When the process that started `up` ends, the chain ends too, even while it is starting."""
    run_dir = tmp_path / "chain"
    run_dir.mkdir()
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen({_command(run_dir)!r}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        try:
            _await(lambda: len(_processes(run_dir)) > 5, 60, "the stages are being started")
            process.kill()
            process.wait(5)
            _await(lambda: not _processes(run_dir), 2 * GONE_S, "no process is left")
        finally:
            process.kill()
            for left in _processes(run_dir):
                left.kill()


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    """A taken port ends `up` at once with status 1, the setting's name and the remedy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            _command(tmp_path, "--ingest-port", port), capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert f"ingest_port is {port}" in ended.stderr
    assert "choose another port" in ended.stderr
    assert not _processes(tmp_path)


def test_a_kafka_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With an external Kafka that does not answer, `up` ends with the setting's name, and starts no broker."""
    options = ("--bootstrap-servers", "127.0.0.1:1", "--kafka-wait-s", "2")
    ended = subprocess.run(_command(tmp_path, *options), capture_output=True, text=True, timeout=90, check=False)
    assert ended.returncode == 1
    assert "bootstrap_servers='127.0.0.1:1'" in ended.stderr
    _await(lambda: not _processes(tmp_path), 5, "no process is left")
    assert not (tmp_path / "kafka").exists()


def test_a_run_directory_serves_one_chain(tmp_path: Path) -> None:
    """A second `up` in the same directory is refused by name and disturbs nothing."""
    import fcntl

    with (tmp_path / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ended = subprocess.run(_command(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "in use by another `up`" in ended.stderr


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    """A misspelt environment variable is an error that names it, not a default left in force."""
    environment = {**os.environ, "EMOSTREAM_TRIGER_S": "2"}
    ended = subprocess.run(_command(tmp_path), env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "EMOSTREAM_TRIGER_S is not a setting" in ended.stderr
