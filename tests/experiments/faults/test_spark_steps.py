"""The signs of a micro-batch's steps: what a stopped Kafka has not read, and what the checkpoint says."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from experiments.faults import spark_steps
from experiments.faults.scenarios import catalogue
from pipeline.errors import EmoStreamError


def scene(port: int = 1, folder: Path = Path()) -> Any:
    """Return what stands in for a chain whose Kafka listens at `port`."""
    return SimpleNamespace(endpoints=SimpleNamespace(bootstrap_servers=f"127.0.0.1:{port}", run_dir=str(folder)))


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="it needs Linux")
def test_what_a_process_sent_and_kafka_has_not_read_is_seen() -> None:
    """Also on a connection that Kafka has not accepted; not what another process sent, or what was read."""
    itself, other = psutil.Process(), psutil.Process(os.getppid())
    with socket.create_server(("127.0.0.1", 0)) as kafka:
        port = kafka.getsockname()[1]
        with socket.create_connection(kafka.getsockname()) as sender:
            assert spark_steps._unread(scene(port), itself) == 0
            sender.sendall(b"hello")
            assert spark_steps._unread(scene(port), itself) == 5
            assert spark_steps._unread(scene(port), other) == 0
            accepted, _ = kafka.accept()
            with accepted:
                assert spark_steps._unread(scene(port), itself) == 5
                accepted.recv(3)
                assert spark_steps._unread(scene(port), itself) == 2


def test_a_micro_batch_is_under_way_between_its_offsets_and_its_commit(tmp_path: Path) -> None:
    """Files of Hadoop's beside them do not count."""
    for kind in ("offsets", "commits"):
        (tmp_path / "checkpoint" / kind).mkdir(parents=True)

    def write(kind: str, number: int) -> None:
        (tmp_path / "checkpoint" / kind / str(number)).touch()
        (tmp_path / "checkpoint" / kind / f".{number}.crc").touch()

    at, spark = scene(folder=tmp_path), spark_steps._Spark(psutil.Process(), psutil.Process(), 9)
    seen = []
    for kind, number in (("offsets", 9), ("commits", 9), ("offsets", 10), ("commits", 10), ("offsets", 11)):
        write(kind, number)
        seen.append((spark_steps._nothing_is_under_way(at, spark), spark_steps._is_under_way(at, spark)))
    assert seen == [(False, False), (True, False), (False, True), (False, False), (False, False)]


def test_a_step_that_is_not_seen_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each micro-batch is tried once."""
    tried: list[int] = []
    monkeypatch.setattr(spark_steps, "_at_work", lambda _: None)
    monkeypatch.setattr(spark_steps, "STEPS", {"emitted": lambda *_: tried.append(1)})
    with pytest.raises(EmoStreamError, match="in 30 micro-batches Spark was not seen at this step: emitted"):
        spark_steps.killed_at("emitted")(scene())
    assert len(tried) == spark_steps.TRIES


def test_each_step_has_a_scenario() -> None:
    """Six of them."""
    assert sum(name.startswith("spark-at-") for name in catalogue()) == len(spark_steps.STEPS) == 6
