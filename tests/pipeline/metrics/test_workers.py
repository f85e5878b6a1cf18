"""Metrics of several worker processes behind one port."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.metrics import workers
from tests.harness.stages.metrics import at, scraped

FOLDER = Path(workers.__file__).parent
# No test here waits this long unless something is broken.
DEADLINE_S = 60.0
# Two workers, started like those of ingest; scraped when both have counted, and again when one is dead.
STAGE_OF_TWO = """
import multiprocessing, os, sys, threading
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.metrics import Meters
from pipeline.metrics import workers
from pipeline.metrics.exposition import bare_registry, expose

class NoSink:
    lost = errors = 0

def work(accepted, waiting, counted):
    workers.join()
    buffer = Buffer(100, 1_000)
    meters = Meters(buffer, lambda: float(waiting))
    buffer.add([b"x"] * accepted)
    buffer.take()
    buffer.done()
    buffer.add([b"x"] * waiting)
    meters.refused("Not JSON")
    meters.flushed(accepted, 0.01)
    meters.refresh(NoSink())
    counted.send(True)
    threading.Event().wait()

class AllWorkers:
    def collect(self):
        return workers.summed(())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with workers.together():
        started = []
        for figures in ((5, 2), (7, 3)):
            counted, notify = context.Pipe(duplex=False)
            started.append(context.Process(target=work, args=(*figures, notify), daemon=True))
            started[-1].start()
            counted.recv()
        print(os.environ[workers.FOLDER])
        print(expose(bare_registry(AllWorkers()), "")[0].decode(), end="---")
        started[1].kill()
        started[1].join()
        print(expose(bare_registry(AllWorkers()), "")[0].decode(), end="")
        started[0].kill()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_are_summed_and_dead_ones_have_no_gauges(method: str, tmp_path: Path) -> None:
    """Counters and histograms sum over all workers, gauges over live ones; of the silence, the maximum is shown."""
    program = tmp_path / "stage.py"
    program.write_text(STAGE_OF_TWO)
    ended = subprocess.run(
        [sys.executable, str(program), method],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    folder, _, printed = ended.stdout.partition("\n")
    both, survivor = (scraped(text.encode()) for text in printed.split("---"))
    assert at(both, "emostream_ingest_reactions_accepted_total") == 5 + 2 + 7 + 3
    assert at(both, "emostream_ingest_requests_refused_total", reason="not_json") == 2
    assert at(both, "emostream_ingest_flush_reactions_count") == 2
    assert at(both, "emostream_ingest_flush_reactions_bucket", le="+Inf") == 2
    assert at(both, "emostream_ingest_buffer_reactions") == 5
    assert at(both, "emostream_ingest_buffer_limit_reactions") == 200
    assert at(both, "emostream_ingest_workers") == 2
    assert at(both, "emostream_ingest_kafka_silence_seconds") == 3
    assert at(survivor, "emostream_ingest_reactions_accepted_total") == 17
    assert at(survivor, "emostream_ingest_buffer_reactions") == 2
    assert at(survivor, "emostream_ingest_workers") == 1
    assert at(survivor, "emostream_ingest_kafka_silence_seconds") == 2
    assert Path(folder).parent == tmp_path
    assert not Path(folder).exists()
