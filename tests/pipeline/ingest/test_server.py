"""Ingest's main process, before it makes its workers."""

from __future__ import annotations

import gc
import weakref

import pytest

from pipeline.ingest import server
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
