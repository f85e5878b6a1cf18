"""A chain that runs, as tests see it: its subscribers' processes, the windows it emits, reactions for more of them."""

from __future__ import annotations

import asyncio

import aiohttp
import psutil

from experiments.run.chain import Endpoints, settings_of
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.messages import decode_window
from tests.harness.builders import reaction


def subscriber_process(endpoints: Endpoints, name: str) -> psutil.Process:
    """The process of subscriber 1/`name`."""
    words = ["pipeline.subscriber", "--cluster", "1", "--subscriber", name]
    for process in psutil.process_iter():
        try:
            if process.cmdline()[-5:] == words and process.environ().get("EMOSTREAM_RUN_DIR") == endpoints.run_dir:
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"subscriber 1/{name} is not running")


def emitted(endpoints: Endpoints) -> dict[str, int]:
    """Every window's id and how many reactions it counts, as Spark emitted them."""
    values = settings_of(endpoints)
    bus = KafkaBus(values.kafka)
    try:
        windows = [decode_window(record.value) for record in bus.read(topics(values).aggregates.name)]
    finally:
        bus.close()
    # A repeated micro-batch is the same window.
    return {window.event_id: window.total for window in windows}


async def react(http: aiohttp.ClientSession, ingest: str, stop: asyncio.Event) -> int:
    """Send reactions, so that every trigger has a window, until `stop`; return how many."""
    number = 0
    while not stop.is_set():
        number += 1
        async with http.post(f"{ingest}/reactions", json=reaction(f"fan-{number}")) as answer:
            assert answer.status == 202
        await asyncio.sleep(0.3)
    return number
