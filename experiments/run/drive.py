"""Run the load and the audience, two processes beside the chain, from the first connection to the last window."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from experiments import environment, files
from experiments.load import closed_loop, invalid
from experiments.machine.planted import planted
from experiments.parameters import Parameters
from experiments.run import open_loop
from experiments.run.chain import Endpoints
from pipeline.bus.base import Reader
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.records import readable
from pipeline.bus.topics import Topics
from pipeline.errors import EmoStreamError
from pipeline.messages import decode_window

# A slow chain may still need this many windows after the load; the rest then counts as lost.
DRAIN_TRIGGERS = 5
# The load ended long before; a process that still runs then will not end.
OVERTIME_S = 60.0

Steps = Callable[[str, float], None]
"""`step(activity, seconds of load done)` reports progress."""
Load = Callable[[Parameters, Endpoints, Path, Steps], None]
"""Sends a load to a chain and leaves `plan.parquet` and `sent.parquet` in the run's directory."""


def drive(
    parameters: Parameters,
    endpoints: Endpoints,
    bus: KafkaBus,
    names: Topics,
    since: Mapping[int, int],
    run_dir: Path,
    step: Steps,
    load: Load | None = None,
) -> dict[str, Any]:
    """Connect the audience, send the load, wait until the last reaction's window has reached every client.

    `load` replaces that of the parameters' `loop`. Leaves `plan`, `sent`, `invalid`, `clients` and `deliveries` as
    parquet in `run_dir`. Records of emoji-events from the offsets `since` on are this run's. Return how the warm-up of
    an open loop went, as open_loop.run does. Raises EmoStreamError if one of the processes fails.
    """
    warm_up: dict[str, Any] = {}
    step("connecting clients", 0)
    with ExitStack() as stack:
        windows = stack.enter_context(closing(bus.reader(names.aggregates.name, bus.ends(names.aggregates.name))))
        audience = stack.enter_context(_audience(endpoints, parameters.clients, run_dir))
        stack.callback(_end, audience)
        assert audience.stdin is not None
        assert audience.stdout is not None
        if audience.stdout.readline().strip() != "ready":
            raise EmoStreamError("the receivers could not connect: see their message above")
        files.to_parquet(invalid.none(), run_dir / "invalid.parquet")
        stack.enter_context(planted(parameters, audience.pid))
        if load is not None:
            load(parameters, endpoints, run_dir, step)
        elif parameters.loop == "closed":
            closed_loop.run(parameters, endpoints.ingest, run_dir, step)
        else:
            warm_up = open_loop.run(parameters, endpoints.ingest, windows, run_dir, step)
        step("waiting for the last window", parameters.load_s)
        patience_s = DRAIN_TRIGGERS * parameters.trigger_s
        # First comes the last flush of ingest's buffer.
        time.sleep(parameters.flush_ms / 1000 + 0.5)
        last = last_window(bus.ends(names.events.name), since, windows, patience_s)
        audience.stdin.write(f"until {last} {patience_s:g}\n")
        audience.stdin.flush()
        if audience.wait(patience_s + OVERTIME_S) != 0:
            raise EmoStreamError(f"the receivers ended with status {audience.returncode}: see their message above")
    return warm_up


def last_window(ends: Mapping[int, int], since: Mapping[int, int], windows: Reader, patience_s: float) -> str:
    """Return the id of the window with which every record from `since` up to `ends` is covered.

    If none arrives within `patience_s`, return the last that did; the records after it count as lost.
    """
    awaited = {partition: end for partition, end in ends.items() if end > since.get(partition, 0)}
    deadline_s = time.monotonic() + patience_s
    covered: dict[int, int] = {}
    last = "none:0"
    while time.monotonic() < deadline_s and any(covered.get(p, 0) < end for p, end in awaited.items()):
        for _, window in readable(windows.poll(0.2), decode_window, "window"):
            last = window.event_id
            for key, (_, upto) in window.offsets.items():
                covered[int(key.rpartition("-")[2])] = upto + 1
    return last


def _audience(endpoints: Endpoints, clients: int, run_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.run.audience", endpoints.registry, str(clients), str(run_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment.own(os.environ),
    )


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait(10)
