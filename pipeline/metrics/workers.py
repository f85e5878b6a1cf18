"""Metrics of a stage that runs as several worker processes behind one port.

A scrape reaches any one of the workers. So each worker writes its metrics to a file, and the one that is asked adds up
all files: the multiprocess mode of prometheus_client. A dead worker's counters still count; its gauges do not.
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
    """Let the worker processes that are started in the body share their metrics."""
    folder = tempfile.mkdtemp(prefix="emostream-metrics-")
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


def join() -> None:
    """Make this process one of the workers; call it before the process creates its first metric.

    The library reads the variable at import, which in a forked worker was before the variable was set.
    """
    if FOLDER in os.environ:
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]


def summed(own: Sequence[Collector]) -> Iterable[Metric]:
    """Return the sums over all workers, or the metrics of `own` if this process is the only one."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return [metric for collector in own for metric in collector.collect()]
    for path in Path(folder).glob("gauge_live*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not psutil.pid_exists(pid):
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    summed: Iterable[Metric] = multiprocess.MultiProcessCollector(None, folder).collect()  # type: ignore[no-untyped-call]
    return summed
