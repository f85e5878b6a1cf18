"""Every state of a checkpoint against its topic: each reaction is counted once, and what is gone is named."""

from __future__ import annotations

import copy
import itertools
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import UNSET, structs
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from pipeline import jars
from pipeline.broker.data_dir import LOG_DIR
from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.records import readable
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.java import find_java
from pipeline.messages import Event, HighWater, Window, decode_window, encode
from pipeline.settings import Settings
from spark.job import begin
from spark.metrics import BatchMeters
from spark.other_jobs import OtherJobs
from spark.session import session
from spark.triggers import Batches
from tests.harness.stages.bus import append
from tests.harness.stages.spark import end_session
from tests.harness.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
# Enough for a batch on a busy machine.
DEADLINE_S = 180.0


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """Yield a session like the job's."""
    running = session("tests", "local[1]", "512m", jars.spark_connector_jars(), str(find_java().home))
    yield running
    end_session(running)


class History:
    """A topic, its windows, and a job that is started, stopped and started again over one checkpoint."""

    def __init__(self, spark: SparkSession, broker: EmbeddedKafka, folder: Path, **changes: object) -> None:
        self._spark = spark
        self.settings = Settings(
            bootstrap_servers=broker.bootstrap_servers,
            topic_prefix=f"checkpoint-{uuid.uuid4().hex}-",
            partitions=2,
            trigger_s=0.5,
            run_dir=str(folder),
        ).replace(**changes)
        self.names = topics(self.settings)
        self.checkpoint = folder / "checkpoint"
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        with closing(self.bus()) as bus:
            bus.ensure(self.names.events, self.names.aggregates)

    def bus(self) -> KafkaBus:
        """Open a connection."""
        return KafkaBus(self.settings.kafka)

    def send(self, count: int, ids: str = "") -> None:
        """Append so many reactions, with ids that begin with `ids` unless it is empty."""
        with closing(self.bus()) as bus:
            for number in range(count):
                reaction_id = f"{ids}{number}" if ids else UNSET
                event = encode(Event("fan", "😂", "2026-11-23T09:30:00Z", 1, 2, reaction_id))
                append(bus, self.names.events.name, event, key=b"%d" % number)

    def windows(self) -> list[Window]:
        """Return the windows that a stage behind would forward."""
        mark, found = HighWater(), []
        with closing(self.bus()) as bus:
            for _, window in readable(bus.read(self.names.aggregates.name), decode_window, "window"):
                if mark.is_new(window):
                    mark.raise_to(window)
                    found.append(window)
        return found

    def total(self) -> int:
        """Return how many reactions the windows count."""
        return sum(window.total for window in self.windows())

    def count(self, total: int) -> None:
        """Run the job until the windows count `total` reactions."""
        with self.running() as (query, _):
            until(lambda: self.total() >= total or query.exception(), f"{total} reactions counted", DEADLINE_S, 0.2)
            query.processAllAvailable()
            assert query.exception() is None

    @contextmanager
    def running(self) -> Iterator[tuple[StreamingQuery, OtherJobs]]:
        """Run the job meanwhile."""
        with closing(self.bus()) as bus, closing(OtherJobs(bus, self.names)) as others:
            meters = BatchMeters(self.names.events.name, 0.5)
            query, emitter = begin(self._spark, self.settings, bus, meters, others, Batches())
            try:
                yield query, others
            finally:
                query.stop()
                emitter.close()


@pytest.fixture
def history(spark: SparkSession, broker: EmbeddedKafka, tmp_path: Path) -> History:
    """Return a topic whose first 9 reactions have been counted, and then 5, in one epoch."""
    made = History(spark, broker, tmp_path)
    made.send(9)
    made.count(9)
    shutil.copytree(made.checkpoint, tmp_path / "older")
    made.send(5)
    made.count(14)
    assert len({window.epoch for window in made.windows()}) == 1
    return made


def deleted(history: History) -> None:
    """Delete the checkpoint."""
    shutil.rmtree(history.checkpoint)


def restored(history: History) -> None:
    """Restore an older copy."""
    shutil.rmtree(history.checkpoint)
    shutil.copytree(history.checkpoint.with_name("older"), history.checkpoint)


def torn(history: History) -> None:
    """Cut the newest batch's offsets short, as a full disk or a lost page does."""
    newest = max((history.checkpoint / "offsets").glob("[0-9]*"), key=lambda path: int(path.name))
    newest.write_text(newest.read_text()[:40])
    (newest.parent / f".{newest.name}.crc").unlink()


@pytest.mark.parametrize("harm", [deleted, restored, torn])
def test_checkpoint_that_does_not_fit_loses_and_doubles_nothing(
    history: History, harm: Callable[[History], None]
) -> None:
    """A new epoch begins behind the last window; the old checkpoint is kept aside, and the next start continues."""
    harm(history)
    history.send(4)
    history.count(18)
    history.send(3)
    history.count(21)
    assert history.total() == 21
    assert len({window.epoch for window in history.windows()}) == 2
    assert len(list(history.checkpoint.parent.glob("checkpoint.left-*"))) == (0 if harm is deleted else 1)


def test_records_that_kafka_removed_are_named_and_the_job_goes_on(history: History) -> None:
    """What was removed uncounted is in the first window after it; nothing else is missing or counted twice."""
    history.send(6)
    with closing(history.bus()) as bus:
        before = {name: last + 1 for name, (_, last) in _ends(history).items()}
        ends = bus.ends(history.names.events.name)
    name = history.names.events.name
    for removed in history.admin.delete_records([TopicPartition(name, p, end) for p, end in ends.items()]).values():
        removed.result(DEADLINE_S)
    history.send(4)
    history.count(18)
    assert history.total() == 18
    lost = [window.lost for window in history.windows() if window.lost]
    expected = {f"{name}-{p}": (before[f"{name}-{p}"], end - 1) for p, end in ends.items()}
    assert lost == [{key: each for key, each in expected.items() if each[1] >= each[0]}]
    assert sum(last - first + 1 for first, last in lost[0].values()) == 6


def cut(log: Path, batches: int) -> None:
    """Take the last batches of records off one of Kafka's logs: a machine that crashed had not written them."""
    data, starts, at = log.read_bytes(), [], 0
    while at < len(data):
        starts.append(at)
        # A batch begins with its first offset (8 bytes) and the length of the rest (4 bytes).
        at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
    log.write_bytes(data[: starts[-batches]])


def test_log_that_lost_its_end_is_counted_once(spark: SparkSession, tmp_path: Path) -> None:
    """Records that were counted are gone, and others have their offsets before the job starts again."""
    data = tmp_path / "kafka"
    with EmbeddedKafka(data) as kafka:
        history = History(spark, kafka, tmp_path / "run", partitions=1)
        history.send(9)
        history.count(9)
    cut(data / LOG_DIR / f"{history.names.events.name}-0" / f"{0:020}.log", 4)
    (data / LOG_DIR / ".kafka_cleanshutdown").unlink()
    with EmbeddedKafka(data) as kafka:
        history.settings = history.settings.replace(bootstrap_servers=kafka.bootstrap_servers)
        with closing(history.bus()) as bus:
            assert bus.ends(history.names.events.name) == {0: 5}
        history.send(7)
        history.count(16)
        history.send(2)
        history.count(18)
        assert history.total() == 18
        assert [window.offsets[f"{history.names.events.name}-0"][0] for window in history.windows()] == [0, 5, 12]


def test_topic_that_was_made_again_is_counted(history: History) -> None:
    """Its offsets begin again, and so does a new epoch, which goes on when the job starts again."""
    name = history.names.events.name
    history.admin.delete_topics([name])[name].result(DEADLINE_S)
    until(lambda: name not in history.admin.list_topics(timeout=240).topics, "the topic is gone", DEADLINE_S)
    with closing(history.bus()) as bus:
        bus.ensure(history.names.events)
    history.send(4)
    history.count(18)
    history.send(3)
    history.count(21)
    assert history.total() == 21
    assert len({window.epoch for window in history.windows()}) == 2


def flooded(history: History) -> None:
    """Write more foreign records behind the last window than the job reads at first."""
    with closing(history.bus()) as bus:
        append(bus, history.names.aggregates.name, *([b"junk"] * 1_500))


@pytest.mark.parametrize("harm", [None, deleted, flooded])
def test_ids_are_remembered_over_restarts(
    spark: SparkSession, broker: EmbeddedKafka, tmp_path: Path, harm: Callable[[History], None] | None
) -> None:
    """A repeat of a reaction that an earlier run of the job counted does not count, in an old or a new epoch."""
    history = History(spark, broker, tmp_path)
    history.send(6, "a")
    history.count(6)
    if harm:
        harm(history)
    # With all ids again, and new reactions to wait for.
    history.send(6, "a")
    history.send(5, "b")
    history.count(11)
    assert history.total() == 11
    assert sum(window.repeats or 0 for window in history.windows()) == 6


def test_topic_that_was_made_again_has_no_repeats_of_the_old_one(
    spark: SparkSession, broker: EmbeddedKafka, tmp_path: Path
) -> None:
    """Its records stand at offsets that windows of the old one name: they count all the same, also after a restart."""
    history = History(spark, broker, tmp_path)
    history.send(20, "a")
    history.count(20)
    name = history.names.events.name
    history.admin.delete_topics([name])[name].result(DEADLINE_S)
    until(lambda: name not in history.admin.list_topics(timeout=240).topics, "the topic is gone", DEADLINE_S)
    with closing(history.bus()) as bus:
        bus.ensure(history.names.events)
    history.send(10, "new")
    history.count(30)
    history.send(12, "other")
    history.count(42)
    assert history.total() == 42


def test_backlog_comes_in_windows_of_a_bounded_size(spark: SparkSession, broker: EmbeddedKafka, tmp_path: Path) -> None:
    """What was not read while Spark was away is counted in several windows, each once."""
    history = History(spark, broker, tmp_path, window_max=10)
    history.send(35)
    history.count(35)
    totals = [window.total for window in history.windows()]
    assert sum(totals) == 35
    assert max(totals) <= 10


def test_window_of_another_program_begins_no_epoch(history: History) -> None:
    """One that covers what was counted, at the end of the topic: its offsets are nobody's place to go on from."""
    name = f"{history.names.events.name}-0"
    foreign = Window("x", 1, 0, 0, {name: (0, 0)}, 0, [], appended_ms={name: 5})
    with closing(history.bus()) as bus:
        append(bus, history.names.aggregates.name, encode(foreign))
    history.send(4)
    history.count(18)
    assert history.total() == 18
    assert len({window.epoch for window in history.windows()}) == 2, "the job's own, and the foreign one"
    assert not list(history.checkpoint.parent.glob("checkpoint.left-*"))


def test_job_beside_another_one_does_not_start(history: History, tmp_path: Path) -> None:
    """It has a checkpoint of its own, and windows come: it would count every reaction a second time."""
    history.settings = history.settings.replace(run_dir=str(tmp_path / "other"), trigger_s=2.0)
    last, stop = history.windows()[-1], threading.Event()

    def emit() -> None:
        with closing(history.bus()) as bus:
            for number in itertools.count(last.window + 1):
                if stop.wait(0.1):
                    return
                append(bus, history.names.aggregates.name, encode(structs.replace(last, window=number)))

    with ThreadPoolExecutor(1) as pool:
        emitting = pool.submit(emit)
        try:
            with pytest.raises(EmoStreamError, match=r"topic_prefix .*another spark\.job counts"), history.running():
                pass
        finally:
            stop.set()
        emitting.result(DEADLINE_S)
    assert not (tmp_path / "other" / "checkpoint").exists()


def test_job_ends_when_another_one_has_begun(spark: SparkSession, history: History, tmp_path: Path) -> None:
    """The other one was started while no windows came. It goes on; what a program imitates is no job."""
    other = copy.copy(history)
    other._spark = spark.newSession()
    other.settings = history.settings.replace(run_dir=str(tmp_path / "other"))
    offsets = history.windows()[-1].offsets
    imitated = Window("x", 0, 0, 0, offsets, 0, [], appended_ms=dict.fromkeys(offsets, 5))
    with history.running() as (first, seen_by_first), other.running() as (second, seen_by_second):
        with closing(history.bus()) as bus:
            append(bus, history.names.aggregates.name, encode(imitated))
        history.send(3)
        later = until(lambda: seen_by_first.later(str(first.id)), "the first job has seen the second", DEADLINE_S, 0.1)
        assert later.epoch == str(second.id)
        assert later.window in (0, 1)
        first.stop()
        history.send(2)

        def counted() -> int:
            return sum(each.total for each in history.windows() if each.epoch == str(second.id))

        until(lambda: counted() >= 5, "the second job goes on", DEADLINE_S, 0.1)
        assert seen_by_second.later(str(second.id)) is None


def _ends(history: History) -> dict[str, tuple[int, int]]:
    """Return of each partition the last range that a window covers."""
    found: dict[str, tuple[int, int]] = {}
    for window in history.windows():
        found |= window.offsets
    return found
