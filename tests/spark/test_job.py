"""The Spark job as the process it is: its windows, its silence, its end, and its life after a restart."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus, KafkaReader
from pipeline.bus.topics import topics
from pipeline.messages import Event, Window, decode_window, encode
from pipeline.settings import Settings, to_env
from spark.policies import NOTHING, represent

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
TRIGGER_MS = 1_000
# A batch starts that soon after its grid point, or much sooner, unless the machine is very busy. Below a half it is
# nearer to this grid point than to the next.
PUNCTUAL_MS = TRIGGER_MS // 2
# Enough for a cold start of Spark on a busy machine.
DEADLINE_S = 240.0


class Job:
    """A job with a checkpoint that can be stopped and restarted; its output is collected as it arrives."""

    def __init__(self, broker: EmbeddedKafka, folder: Path, policy: str = "ceil") -> None:
        self.settings = Settings(
            bootstrap_servers=broker.bootstrap_servers,
            topic_prefix=f"job-{uuid.uuid4().hex}-",
            partitions=2,
            trigger_s=TRIGGER_MS / 1000,
            run_dir=str(folder),
            spark_memory="512m",
        ).replace(policy=policy)
        names = topics(self.settings)
        self.events = names.events.name
        self.log = folder / "log"
        self.windows: list[Window] = []
        self.progress: list[dict[str, Any]] = []
        # Indexes in `windows`: of the probe's window, and of the first window after the restart.
        self.probe = self.restarted = 0
        self.claps = 0
        self._bus = KafkaBus(broker.bootstrap_servers)
        self._bus.ensure(names.events, names.aggregates, names.progress)
        self._readers: dict[str, KafkaReader] = {
            "windows": self._bus.reader(names.aggregates.name),
            "progress": self._bus.reader(names.progress.name),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "spark.job"],
                cwd=REPOSITORY,
                env={**os.environ, **to_env(self.settings)},
                stdout=log,
                stderr=log,
            )

    def end(self) -> int:
        """Stop the process as its supervisor would; return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def uncommit(self) -> int:
        """Undo the last commit, as if the job had been killed just before it; return the number of its window."""
        commits = Path(self.settings.run_dir, "checkpoint", "commits")
        last = max(int(path.name) for path in commits.iterdir() if path.name.isdecimal())
        for path in (commits / str(last), commits / f".{last}.crc"):
            path.unlink(missing_ok=True)
        return last

    def send(self, *values: bytes | None) -> None:
        """Append records to the events."""
        with closing(self._bus.writer()) as writer:
            for number, value in enumerate(values):
                writer.send(self.events, value, key=b"%d" % number)
            writer.flush()

    def collect(self) -> None:
        """Read the new windows and reports."""
        self.windows += [decode_window(record.value) for record in self._readers["windows"].poll(0.1)]
        self.progress += [json.loads(record.value or b"") for record in self._readers["progress"].poll(0.1)]

    def await_records(self, count: int) -> None:
        """Wait until windows cover `count` records and Spark has committed the last of them."""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            self.collect()
            committed = {report["batchId"] for report in self.progress if report["numInputRows"]}
            covered = sum(last - first + 1 for window in self.windows for first, last in window.offsets.values())
            if covered >= count and self.windows[-1].window in committed:
                return
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, f"{covered} of {count} records: {self.log.read_text()[-3000:]}"

    def punctual(self) -> Iterator[tuple[Window, int]]:
        """Yield each window whose batch started on Spark's grid, and when it started, epoch ms.

        A query's first batch, and a batch during or after an overrun, do not start on the grid.
        """
        reports = {report["batchId"]: report for report in self.progress if report["numInputRows"]}
        overran = {batch for batch, report in reports.items() if report["durationMs"]["triggerExecution"] >= TRIGGER_MS}
        for before, window in itertools.pairwise(self.windows):
            first = self.restarted and window.window == self.restarted
            if not first and not {before.window, window.window} & overran and window.window in reports:
                yield window, milliseconds(reports[window.window]["timestamp"])

    def late_ms(self) -> list[int]:
        """Return how long after its trigger each such batch started."""
        return [started_ms - window.trigger_ns // 1_000_000 for window, started_ms in self.punctual()]

    def close(self) -> None:
        """Kill the process and close the connections."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for reader in self._readers.values():
            reader.close()
        self._bus.close()


@pytest.fixture(scope="module")
def job(broker: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Yield a job that counted reactions, unreadable records and a probe, was stopped, and continued after a restart.

    Starting Spark takes most of the time, so the tests below share one history.
    """
    running = Job(broker, tmp_path_factory.mktemp("job"))
    try:
        running.start()
        running.send(*(reaction("😂") for _ in range(25)), *(reaction("🔥") for _ in range(10)))
        running.await_records(35)
        running.probe = len(running.windows)
        running.send(None)
        running.await_records(36)
        running.send(b"nonsense", b"{}", reaction("❤️"))
        running.await_records(39)
        # Several sizes, and at least one batch that started at once: on a busy machine the first ones overrun, or wait.
        deadline_s = time.monotonic() + DEADLINE_S
        while running.claps < 15 or min(running.late_ms(), default=PUNCTUAL_MS + 1) > PUNCTUAL_MS:
            assert time.monotonic() < deadline_s, f"no batch started within {PUNCTUAL_MS} ms of the grid"
            size = running.claps % 5 + 1
            running.send(*(reaction("👏") for _ in range(size)))
            running.claps += size
            running.await_records(39 + running.claps)
        assert running.end() == 0
        running.restarted = len(running.windows)
        running.send(reaction("🎉"))
        running.start()
        running.await_records(40 + running.claps)
        # The last reaction: nothing is sent after it.
        running.send(reaction("💯"))
        running.await_records(41 + running.claps)
        assert running.end() == 0
        yield running
    finally:
        running.close()


def reaction(emoji_type: str) -> bytes:
    """Return an event's record."""
    return encode(Event(uuid.uuid4().hex, emoji_type, "2026-11-23T09:30:00Z", 1, 2))


def counts(windows: list[Window]) -> Counter[str]:
    """Return the counts of all windows together."""
    total: Counter[str] = Counter()
    for window in windows:
        total.update({cell.emoji_type: cell.count for cell in window.reactions})
    return total


def test_every_reaction_is_in_exactly_one_window(job: Job) -> None:
    """Over all windows, across the restart, each type's count is what was sent."""
    assert counts(job.windows) == {"😂": 25, "🔥": 10, "❤️": 1, "👏": job.claps, "🎉": 1, "💯": 1}
    assert sum(window.total for window in job.windows) == 38 + job.claps
    assert sum(window.malformed for window in job.windows) == 3
    for window in job.windows:
        assert window.total == sum(cell.count for cell in window.reactions)
        assert all(cell.representatives == -(-cell.count // 10) for cell in window.reactions)


def test_offsets_have_no_gap_and_no_overlap(job: Job) -> None:
    """In each partition a window starts after the last offset of the previous window, from 0 to the end."""
    after = dict.fromkeys((f"{job.events}-0", f"{job.events}-1"), 0)
    for window in job.windows:
        records = 0
        for partition, (first, last) in window.offsets.items():
            assert first == after[partition]
            after[partition] = last + 1
            records += last - first + 1
        assert records == window.total + window.malformed
    assert sum(after.values()) == 41 + job.claps


def test_window_counts_equal_the_records_at_its_offsets(job: Job) -> None:
    """Every window is recomputed from the topic."""
    with closing(KafkaBus(job.settings.kafka)) as bus:
        records = {(f"{job.events}-{r.partition}", r.offset): r.value for r in bus.read(job.events)}
    for window in job.windows:
        expected: Counter[str] = Counter()
        for partition, (first, last) in window.offsets.items():
            for offset in range(first, last + 1):
                value = records[partition, offset]
                if value and b"emoji_type" in value:
                    expected[json.loads(value)["emoji_type"]] += 1
        assert counts([window]) == expected


def test_probe_gives_an_empty_window(job: Job) -> None:
    """A null record causes a micro-batch; its window has no reactions and counts the record as malformed."""
    probe = job.windows[job.probe]
    assert (probe.total, probe.reactions, probe.malformed, len(probe.offsets)) == (0, [], 1, 1)


def test_restart_continues_with_the_next_window(job: Job) -> None:
    """The epoch is part of the checkpoint; after a clean stop the next window follows without a duplicate."""
    assert len({window.epoch for window in job.windows}) == 1
    assert [window.window for window in job.windows] == list(range(len(job.windows)))
    assert counts([job.windows[job.restarted]]) == {"🎉": 1}


def test_last_reaction_arrives_without_later_traffic(job: Job) -> None:
    """The last record sent is in the last window."""
    assert counts(job.windows[-1:]) == {"💯": 1}


def test_trigger_is_the_grid_point_of_spark(job: Job) -> None:
    """A punctual batch's trigger is the grid point at which Spark started it; the fastest starts soon after it.

    The fixture sends until one does: how late the others are depends on the machine's load.
    """
    reports = {report["batchId"]: report for report in job.progress if report["numInputRows"]}
    assert set(reports) == {window.window for window in job.windows}
    for window, started_ms in job.punctual():
        assert window.trigger_ns == started_ms // TRIGGER_MS * TRIGGER_MS * 1_000_000
        assert window.trigger_ns < window.emitted_ns
    assert min(job.late_ms()) <= PUNCTUAL_MS


def milliseconds(timestamp: str) -> int:
    """Return the epoch milliseconds of Spark's `2026-11-23T09:30:00.000Z`."""
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)


def test_carry_continues_after_a_kill_and_a_replay(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """Killed before its last batch was committed, the job repeats that window exactly and continues from it."""
    with closing(Job(broker, tmp_path, policy="carry")) as running:
        running.start()
        running.send(*(reaction("😂") for _ in range(17)), *(reaction("🔥") for _ in range(4)))
        running.await_records(21)
        running.send(*(reaction("😂") for _ in range(6)))
        running.await_records(27)
        assert running.end() == 0
        first = list(running.windows)
        assert running.uncommit() == first[-1].window
        running.start()
        running.await_records(27 + first[-1].total)
        replay = running.windows[len(first)]
        running.send(*(reaction("😂") for _ in range(7)))
        running.await_records(27 + first[-1].total + 7)
        assert running.end() == 0
    times = {"trigger_ns": 0, "emitted_ns": 0}
    assert msgspec.structs.replace(replay, **times) == msgspec.structs.replace(first[-1], **times)
    assert replay.emitted_ns > first[-1].emitted_ns
    windows = [*first, *running.windows[len(first) + 1 :]]
    carried = NOTHING
    for number, window in enumerate(windows):
        shown = represent("carry", counts([window]), 10, epoch=window.epoch, window=number, carried=carried)
        assert {cell.emoji_type: cell.representatives for cell in window.reactions} == shown.representatives
        assert (window.window, window.carried or NOTHING) == (number, shown.carried)
        carried = shown.carried
    # 30 in all: three full groups, across a restart with 3 carried reactions.
    assert sum(cell.representatives for window in windows for cell in window.reactions) == 3
    assert carried == {"🔥": 4}
