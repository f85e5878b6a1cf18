"""Finding workers of ingest that hang: their process lives, and their event loop or their flusher does nothing.

The system gives a hung worker its share of the connections, and whoever asks the stage for its health may reach another
worker. So each worker counts up in a table that the main process reads.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import threading
from collections.abc import Callable

import psutil

from pipeline import logs
from pipeline.turns import STALLED_S, Turns

log = logs.get(__name__)

BEAT_S = 1.0
LOOK_S = 5.0
SILENT_LOOKS = 12
"""A worker hangs if its count has not changed for as many looks. Looks, and not a time: after the whole machine was
suspended, nobody hangs.
"""
_SLOTS = 4096


class Pulses:
    """A process id and a count for each worker, in memory that processes share which are forked afterwards.

    Two workers whose ids lead to the same slot take it from each other; then only one of them is looked at.
    """

    def __init__(self) -> None:
        self._table = memoryview(mmap.mmap(-1, 16 * _SLOTS)).cast("Q")
        self._seen: dict[int, tuple[int, int]] = {}

    def beat(self) -> None:
        """Count up for this process."""
        pid = os.getpid()
        slot = 2 * (pid % _SLOTS)
        self._table[slot] = pid
        self._table[slot + 1] += 1

    async def keep_beating(self, flusher: Turns) -> None:
        """Count up in the event loop, for ever, while the flusher goes on too. It comes round while Kafka is away."""
        while True:
            if flusher.stalled_s() < STALLED_S:
                self.beat()
            await asyncio.sleep(BEAT_S)

    def hung(self) -> list[int]:
        """Look once; return the ids of the processes that have been silent for SILENT_LOOKS, each once."""
        silent = []
        for slot in range(0, 2 * _SLOTS, 2):
            pid, count = self._table[slot], self._table[slot + 1]
            if not pid:
                continue
            last, looks = self._seen.get(pid, (-1, 0))
            looks = looks + 1 if count == last else 0
            self._seen[pid] = count, looks
            if looks >= SILENT_LOOKS:
                silent.append(pid)
                self._table[slot] = 0
                del self._seen[pid]
        return silent

    def watch(self, stop: threading.Event, end: Callable[[int], object]) -> None:
        """Look every LOOK_S until `stop`, and call `end(pid)` for each process that hangs. For a daemon thread."""
        while not stop.wait(LOOK_S):
            for pid in self.hung():
                end(pid)


def kill_child(pid: int) -> None:
    """Kill a worker of this process, if it is one still: the server starts another in its place."""
    try:
        parent = psutil.Process(pid).ppid()
    except psutil.Error:
        return
    if parent == os.getpid():
        log.warning("a worker hangs, and is replaced", pid=pid, silent_s=LOOK_S * SILENT_LOOKS)
        os.kill(pid, signal.SIGKILL)
