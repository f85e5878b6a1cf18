"""A worker of ingest that hangs is found and replaced; one that is slow, or was suspended with all others, is not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from pipeline.ingest import pulse
from pipeline.ingest.pulse import SILENT_LOOKS, Pulses, kill_child
from pipeline.lifecycle import claim_port
from pipeline.turns import Turns
from tests.harness.http import get_json, is_healthy
from tests.harness.processes import running
from tests.harness.waiting import until

PROGRAM = """
import sys
from pipeline.ingest import pulse, server
from pipeline.settings import Settings

class Bus:
    def __init__(self, *_): pass
    def ensure(self, *_): pass
    def close(self): pass

pulse.LOOK_S, pulse.BEAT_S, pulse.SILENT_LOOKS = 0.2, 0.05, 10
server.KafkaBus = Bus
server.serve(Settings(ingest_port=int(sys.argv[1]), bootstrap_servers="127.0.0.1:1", ingest_workers=2))
"""


def test_worker_that_does_not_beat_is_named_once() -> None:
    """After SILENT_LOOKS without a beat, and again only if it has beaten and fallen silent once more."""
    pulses = Pulses()
    pulses.beat()
    for _ in range(SILENT_LOOKS):
        assert pulses.hung() == []
    assert pulses.hung() == [os.getpid()]
    for _ in range(2 * SILENT_LOOKS):
        assert pulses.hung() == []
    pulses.beat()
    looks = [pulses.hung() for _ in range(SILENT_LOOKS + 1)]
    assert [found for found in looks if found] == [[os.getpid()]]


def test_worker_that_beats_now_and_then_is_not_named() -> None:
    """One that is busy beats late."""
    pulses = Pulses()
    for _ in range(5):
        pulses.beat()
        for _ in range(SILENT_LOOKS):
            assert pulses.hung() == []


async def looks_of(pulses: Pulses, turns: Turns, count: int) -> list[int]:
    """Return who hangs after so many looks, while this process beats as its flusher does."""
    beating = asyncio.create_task(pulses.keep_beating(turns))
    found: list[int] = []
    for _ in range(count):
        await asyncio.sleep(0.01)
        found += pulses.hung()
    beating.cancel()
    return found


def test_worker_whose_flusher_hangs_does_not_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its event loop goes on, and accepts what nobody sends. One whose flusher rests, or comes round, beats."""
    monkeypatch.setattr(pulse, "BEAT_S", 0.001)
    turns = Turns()
    assert asyncio.run(looks_of(Pulses(), turns, SILENT_LOOKS + 2)) == []
    turns.mark()
    assert asyncio.run(looks_of(Pulses(), turns, SILENT_LOOKS + 2)) == []
    monkeypatch.setattr(pulse, "STALLED_S", 0.0)
    pulses = Pulses()
    pulses.beat()
    assert asyncio.run(looks_of(pulses, turns, SILENT_LOOKS + 2)) == [os.getpid()]


def test_only_a_worker_of_this_process_is_killed() -> None:
    """The id of one that has ended may be another process's by now."""
    kill_child(os.getppid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        kill_child(child.pid)
        assert child.wait(60) == -signal.SIGKILL
    kill_child(child.pid)


@pytest.fixture
def stage() -> Iterator[tuple[psutil.Process, str]]:
    """Ingest with two workers, which find no Kafka."""
    port = claim_port("127.0.0.1", 0, "ingest_port")
    with running([sys.executable, "-c", PROGRAM, str(port)]) as main:
        yield psutil.Process(main.pid), f"http://127.0.0.1:{port}"


def workers(main: psutil.Process) -> set[int]:
    """The ids of the live workers."""
    return {each.pid for each in main.children() if each.status() != psutil.STATUS_ZOMBIE}


def test_worker_that_hangs_is_replaced(stage: tuple[psutil.Process, str]) -> None:
    """A stopped process takes connections and answers none; another takes its place."""
    main, url = stage
    until(lambda: is_healthy(url), "ingest listens")
    answered: set[int] = set()

    def both() -> bool:
        answered.add(get_json(f"{url}/healthz")["pid"])
        return answered == workers(main) and len(answered) == 2

    until(both, "both workers answer")
    hung = min(answered)
    os.kill(hung, signal.SIGSTOP)
    until(lambda: hung not in workers(main) and len(workers(main)) == 2, "the worker is replaced")
    for _ in range(10):
        assert get_json(f"{url}/healthz")["pid"] != hung
