"""Ingest's main process, before it makes its workers."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import pytest

from pipeline.broker.data_dir import PROPERTIES, server_properties
from pipeline.ingest import server
from pipeline.ingest.server import disk_full, embedded_folder
from pipeline.settings import Settings


class Client:
    """A client of Kafka, which only the collection of garbage finds: it refers to itself."""

    def __init__(self) -> None:
        self.own = self


def test_workers_inherit_no_garbage_from_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that destroyed a client of its parent process would crash, with the reactions in its buffer."""
    clients: list[weakref.ref[Client]] = []

    class Bus:
        def __init__(self, *_: object) -> None:
            """Connect to nothing."""

        def ensure(self, *_: object) -> None:
            """Leave a client behind."""
            clients.append(weakref.ref(Client()))

        def close(self) -> None:
            """Do nothing."""

    class Server:
        def __init__(self, *_: object, **__: object) -> None:
            """Listen to nothing."""

        def serve(self, **_: object) -> None:
            """Look at what workers would inherit."""
            seen.append(([client() for client in clients], gc.get_freeze_count() > 0))

    seen: list[tuple[list[Client | None], bool]] = []
    monkeypatch.setattr(server, "KafkaBus", Bus)
    monkeypatch.setattr(server, "Granian", Server)
    gc.disable()
    try:
        server.serve(Settings(ingest_port=0))
    finally:
        gc.unfreeze()
        gc.enable()
    assert seen == [([None], True)]


def test_disk_without_room_is_named_with_the_setting(tmp_path: Path) -> None:
    """Only with a folder, which has to be there, and only if a floor is set."""
    free_mb = shutil.disk_usage(tmp_path).free >> 20
    assert disk_full(tmp_path, 1) == disk_full(tmp_path, 0) == disk_full(tmp_path / "none", 10**9) == ""
    assert disk_full(None, 10**9) == ""
    words = disk_full(tmp_path, free_mb + 10**6)
    assert str(tmp_path) in words
    assert f"{free_mb + 10**6} MB (disk_free_min_mb)" in words


@pytest.mark.parametrize(
    ("servers", "ours"),
    [
        ("127.0.0.1:9092", True),
        ("localhost:9092", True),
        ("kafka.example:9092,127.0.0.1:9092", True),
        ("127.0.0.1:909", False),
        ("127.0.0.1:9093", False),
        ("kafka.example:9092", False),
    ],
)
def test_only_the_disk_of_the_kafka_in_use_counts(tmp_path: Path, servers: str, ours: bool) -> None:
    """The folder of an embedded Kafka may be there from an earlier run, while reactions go to another one."""
    values = Settings(run_dir=str(tmp_path), bootstrap_servers=servers)
    assert embedded_folder(values) is None
    folder = tmp_path / "kafka"
    folder.mkdir()
    (folder / PROPERTIES).write_text(server_properties(9092, 9093))
    assert embedded_folder(values) == (folder if ours else None)
