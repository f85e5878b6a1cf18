"""Metrics of a stage that runs as several worker processes behind one port.

A scrape reaches whichever worker takes it, so each writes its figures to a file and the one that is asked adds all of
them up: the multiprocess mode of prometheus_client. What a dead worker has counted stays counted; what it held (a
gauge) goes with it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from prometheus_client import Metric, multiprocess, values
from prometheus_client.registry import Collector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def together() -> Iterator[None]:
    """Let the worker processes that are started meanwhile share their metrics."""
    folder = tempfile.mkdtemp(prefix="emostream-metrics-")
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


def join() -> None:
    """Make this process one of the workers; call it before it makes its first metric.

    The library chooses by the variable when it is imported, which for a forked worker is before the variable was set.
    """
    if FOLDER in os.environ:
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]


def everyones(own: Sequence[Collector]) -> Iterable[Metric]:
    """Return the sums over all workers, or what `own` collect where this process is the only one."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return [metric for collector in own for metric in collector.collect()]
    for path in Path(folder).glob("gauge_live*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not psutil.pid_exists(pid):
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    summed: Iterable[Metric] = multiprocess.MultiProcessCollector(None, folder).collect()  # type: ignore[no-untyped-call]
    return summed
