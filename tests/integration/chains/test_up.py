"""`python -m pipeline up`: it restarts what dies and leaves nothing behind, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.bus.kafka import KafkaBus
from pipeline.client import Client
from pipeline.messages import decode_window
from tests.harness.builders import reaction
from tests.harness.http import post_status
from tests.harness.network import HAS_IPV6
from tests.harness.processes import module, run_to_end, taken_port
from tests.harness.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

READY_S = 120.0
GONE_S = 30.0
OPTIONS = ("--ingest-port", "0", "--registry-port", "0", "--trigger-s", "1", "--clusters", "1", "--subscribers", "1")


def _command(run_dir: Path, *options: str) -> list[str]:
    ready = str(run_dir / "ready.json")
    return module("pipeline", "up", "--run-dir", str(run_dir), "--ready-file", ready, *OPTIONS, *options)


def _ready(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "ready.json"
    until(path.exists, f"the chain in {run_dir} is ready", READY_S)
    ready: dict[str, Any] = json.loads(path.read_text())
    return ready


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
def _up(run_dir: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    run_dir.mkdir(exist_ok=True)
    env = {**os.environ, **environment}
    with (
        (run_dir / "up.log").open("wb") as log,
        subprocess.Popen(_command(run_dir, *options), env=env, stdout=log, stderr=log) as up,
    ):
        try:
            yield up
        finally:
            if up.poll() is None:
                up.kill()
            for process in _processes(run_dir):
                process.kill()


def _events(run_dir: Path, name: str = "") -> list[dict[str, Any]]:
    """What `up` has reported, each line of it JSON: all events, or those of one name."""
    lines = [
        json.loads(line) for line in (run_dir / "up.log").read_text().splitlines(keepends=True) if line[-1] == "\n"
    ]
    return [line for line in lines if "event" in line and name in ("", line["event"])]


def _post(ready: dict[str, Any], user_id: str) -> int:
    return post_status(f"{ready['ingest']}/reactions", reaction(user_id))


def _total(ready: dict[str, Any], topic: str) -> int:
    """The reactions in every window of `topic`; each window is there once."""
    bus = KafkaBus(ready["bootstrap_servers"])
    try:
        windows = [decode_window(record.value) for record in bus.read(topic)]
    finally:
        bus.close()
    assert len({window.event_id for window in windows}) == len(windows)
    return sum(window.total for window in windows)


async def _first_window(ready: dict[str, Any]) -> int:
    """The reactions in the first window that has any, as a client gets it."""
    async with Client.register(ready["registry"]) as client:
        async for window in client:
            if window.total:
                return window.total
    raise AssertionError("the client ended")


def _others_settings(folder: Path) -> dict[str, str]:
    """What people set for other programs, and what would break a chain that read it."""
    (folder / "conf").mkdir()
    (folder / "conf" / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://localhost:9</value></property></configuration>"
    )
    (folder / "python" / "pyspark").mkdir(parents=True)
    proxies = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {
        **dict.fromkeys(proxies, "http://127.0.0.1:9"),
        **dict.fromkeys(("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_CONF_DIR", "CLASSPATH"), str(folder / "conf")),
        **dict.fromkeys(("SPARK_HOME", "HADOOP_HOME", "PROMETHEUS_MULTIPROC_DIR", "TMPDIR"), "/nowhere"),
        **dict.fromkeys(("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "KAFKA_OPTS"), "-Xmx1m"),
        "PYTHONOPTIMIZE": "2",
        "PYTHONWARNINGS": "error",
        "PYTHONINSPECT": "1",
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": str(folder / "python"),
        "LC_ALL": "tr_TR.ISO-8859-9",
        "TZ": "Mars/Phobos",
    }


def test_stages_that_die_come_back_and_nothing_is_lost(tmp_path: Path) -> None:
    """After Spark, both publishers and a subscriber are killed, all reactions reach the feed once; SIGTERM ends all.

    On IPv6, in a folder with an unusual name, and with what people set for other programs. `up` reports every stage
    that is ready, every death with its signal, and every return.
    """
    run_dir = tmp_path / "a chain, ü#%20"
    options = ("--host", "::1" if HAS_IPV6 else "localhost")
    with _up(run_dir, *options, **_others_settings(tmp_path)) as up:
        ready = _ready(run_dir)
        assert "JAVA_TOOL_OPTIONS" in (run_dir / "up.log").read_text()
        for number in range(20):
            assert _post(ready, f"before-{number}") == 202
        assert 1 <= asyncio.run(_first_window(ready)) <= 20
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
            assert _post(ready, f"after-{number}") == 202
        until(lambda: _total(ready, "cluster-1-feed") == 40, "all 40 reactions are in the feed, once", 60)
        until(lambda: len(_events(run_dir, "back")) == len(victims), "`up` has reported that all four are back")
        up.send_signal(signal.SIGTERM)
        assert up.wait(GONE_S) == 0
        until(lambda: not _processes(run_dir), "no process is left", GONE_S)
        assert not (run_dir / "ready.json").exists()
    carriers = {"spark", "main-publisher", "cluster-publisher-1", "subscriber-1-1"}
    started = {line["name"]: line for line in _events(run_dir, "ready")}
    assert started.keys() == carriers | {"kafka", "ingest", "registry"}
    assert all(0 < line["after_s"] <= ready["ready_s"] and line["address"] for line in started.values())
    assert started["kafka"]["after_s"] < started["spark"]["after_s"] <= started["subscriber-1-1"]["after_s"]
    died = {line["name"]: (line["exit"], line["deaths"], line["restarted"]) for line in _events(run_dir, "died")}
    assert died == dict.fromkeys(carriers, ("SIGKILL", 1, True))
    assert {line["name"] for line in _events(run_dir, "back")} == carriers
    assert [line["event"] for line in _events(run_dir)][-2:] == ["stopping", "stopped"]


def test_sigkill_leaves_no_child_running(tmp_path: Path) -> None:
    """When `up` is killed outright every process of the chain, the two Java ones included, is gone soon after.

    It is ready although the address for its clients is not.
    """
    run_dir = tmp_path / "chain"
    url = "https://not-yet-up.example.invalid"
    with _up(run_dir, "--host", "0.0.0.0", "--registry-url", url) as up:
        assert _ready(run_dir)["registry"] == url
        assert len([p for p in _processes(run_dir) if "java" in p.name()]) == 2
        up.send_signal(signal.SIGKILL)
        up.wait(5)
        until(lambda: not _processes(run_dir), "no process is left", GONE_S)


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
            until(lambda: len(_processes(run_dir)) > 5, "the stages are being started", 60)
            process.kill()
            process.wait(5)
            until(lambda: not _processes(run_dir), "no process is left", 2 * GONE_S)
        finally:
            process.kill()
            for left in _processes(run_dir):
                left.kill()


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    """A taken port ends `up` at once with status 1, the setting's name and the remedy."""
    with taken_port() as port:
        ended = run_to_end(_command(tmp_path, "--ingest-port", str(port)))
    assert ended.returncode == 1
    assert f"ingest_port is {port}" in ended.stderr
    assert "choose another port" in ended.stderr
    assert not _processes(tmp_path)


def test_a_kafka_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With an external Kafka that does not answer, `up` ends with the setting's name, and starts no broker."""
    options = ("--bootstrap-servers", "127.0.0.1:1", "--kafka-wait-s", "2")
    ended = run_to_end(_command(tmp_path, *options), 90)
    assert ended.returncode == 1
    assert "bootstrap_servers='127.0.0.1:1'" in ended.stderr
    until(lambda: not _processes(tmp_path), "no process is left", GONE_S)
    assert not (tmp_path / "kafka").exists()


def test_a_run_directory_serves_one_chain(tmp_path: Path) -> None:
    """A second `up` in the same directory is refused by name and disturbs nothing."""
    import fcntl

    with (tmp_path / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ended = run_to_end(_command(tmp_path))
    assert ended.returncode == 1
    assert "in use by another `up`" in ended.stderr


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    """A misspelt environment variable is an error that names it, not a default left in force."""
    ended = run_to_end(_command(tmp_path), EMOSTREAM_TRIGER_S="2")
    assert ended.returncode == 1
    assert "EMOSTREAM_TRIGER_S is not a setting" in ended.stderr
