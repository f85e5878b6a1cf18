"""The Spark job: from `emoji-events` to one window record per micro-batch on `emoji-aggregates`.

Spark's checkpoint keeps the state: which offsets belong to which window. A batch that is replayed after a crash covers
the same offsets under the same `(epoch, window)`, so that later stages can drop the duplicate. The remainders of policy
`carry` are kept in the windows themselves and read back from the end of `emoji-aggregates`.
"""

from __future__ import annotations

import json
import math
import re
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from pyspark.sql import SparkSession
from pyspark.sql.streaming import listener as events
from pyspark.sql.streaming.listener import StreamingQueryListener
from pyspark.sql.streaming.query import StreamingQuery

from pipeline import class_archive, environment, jars, java, kafka_security, lifecycle, logs, settings
from pipeline.bus.base import Bus, Record
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.records import readable, tail_until
from pipeline.bus.topics import Topics, topics
from pipeline.dead_letters import DeadLetters
from pipeline.errors import EmoStreamError
from pipeline.messages import Window, decode_window
from pipeline.metrics.exposition import collector_registry
from pipeline.metrics.server import serving
from pipeline.streaming_progress import decode_progress
from spark import resume
from spark.aggregation import identified, parse
from spark.checkpoint import CheckpointFolder
from spark.emitter import Emitter
from spark.metrics import STAGE, BatchMeters
from spark.other_jobs import OtherJobs
from spark.repeats import REMEMBERED_MS, Identified, Remembered, first_remembered, to_remember
from spark.resume import Start, number_of
from spark.same_topic import SameTopic
from spark.session import session, shipped_jars
from spark.triggers import Batches

log = logs.get(__name__)

OPTIONS = (
    "bootstrap_servers",
    "kafka_security_file",
    "kafka_wait_s",
    "topic_prefix",
    "partitions",
    "trigger_s",
    "window_max",
    "group_size",
    "policy",
    "checkpoint_dir",
    "run_dir",
    "spark_master",
    "spark_memory",
    "host",
    "metrics_port",
    "log_level",
)
# The source waits this long at the end of each partition's range. With Kafka's default of 500 ms, this wait would be
# most of a micro-batch's time.
FETCH_WAIT_MS = 20
# Each window may have been emitted more than once.
TAIL = 200


class Progress(StreamingQueryListener):
    """Sends Spark's progress report of every micro-batch to a topic, and updates metrics and batches from it."""

    def __init__(self, bus: Bus, topic: str, meters: BatchMeters, batches: Batches) -> None:
        self._bus = bus
        self._meters = meters
        self._batches = batches
        self._writer = bus.writer()
        self._topic = topic

    def onQueryStarted(self, event: events.QueryStartedEvent) -> None:
        """Do nothing."""

    def onQueryProgress(self, event: events.QueryProgressEvent) -> None:
        """Publish one progress report."""
        self._meters.query.mark()
        # Every access asks the JVM.
        report = event.progress.json.encode()
        self._writer.send(self._topic, report)
        progress = decode_progress(report)
        self._batches.report(progress)
        self._meters.progress(progress, self._bus)

    def onQueryIdle(self, event: events.QueryIdleEvent) -> None:
        """Note that the query goes on."""
        self._meters.query.mark()

    def onQueryTerminated(self, event: events.QueryTerminatedEvent) -> None:
        """Send the remaining reports and close the connection."""
        self._writer.close()


def checkpoint_location(checkpoint_dir: str, run_dir: str) -> str:
    """Return the URL of Spark's checkpoint: on this machine's file system, unless `checkpoint_dir` has a scheme.

    Characters are not escaped: Hadoop does that itself.
    """
    if settings.SCHEME.match(checkpoint_dir):
        return checkpoint_dir
    return f"file://{Path(checkpoint_dir or Path(run_dir, 'checkpoint')).resolve()}"


def fitting(
    folder: CheckpointFolder, bus: KafkaBus, names: Topics, tail: Sequence[Window], check_alone: Callable[[], None]
) -> Start:
    """Compare the checkpoint with the windows and the topic; return how to start. `tail` are the job's last windows.

    A checkpoint that does not fit is set aside. A new epoch then begins behind the last window, and the log says why;
    before that `check_alone` is called.
    """
    checkpoint = folder.read(tail[-1].window if tail else None)
    bounds = bus.bounds(names.events.name)
    firsts, ends = ({number: each[end] for number, each in bounds.items()} for end in (0, 1))
    found = resume.start(checkpoint, tail, firsts, ends, _others(bus, names.events.name, tail, firsts))
    if found.reason:
        # A partition that was quiet for long is named by earlier windows only.
        every = _every_window(bus, names)
        found = resume.start(checkpoint, every, firsts, ends, _others(bus, names.events.name, every, firsts))
    if found.reason:
        check_alone()
        kept = folder.set_aside(checkpoint.epoch)
        folder.note(found.after)
        log.warning(
            "a new epoch begins", reason=found.reason, behind=found.after, lost=dict(found.lost), old_checkpoint=kept
        )
    return found


def _others(bus: KafkaBus, topic: str, windows: Iterable[Window], firsts: Mapping[int, int]) -> dict[int, int]:
    """Return what `resume.start` has to know of other records at offsets that were counted."""
    last = {
        number: each for number, each in resume.last_counted(windows).items() if each.offset >= firsts.get(number, 0)
    }
    stamps = bus.stamps(topic, {number: each.offset for number, each in last.items()})
    replaced = {number for number, each in last.items() if stamps.get(number) != each.appended_ms} & firsts.keys()
    if not replaced:
        return {}
    latest_ms = max(each.latest_ms for each in last.values())
    since = bus.since(topic, latest_ms + 1)
    # A clock may have been set back; the record at the last offset is another one in any case. Of a partition that no
    # window names, only the checkpoint says what was counted.
    return {
        number: min(since[number], last[number].offset) if number in replaced else since[number]
        for number in firsts.keys() - (last.keys() - replaced)
    }


def source_options(values: settings.Settings) -> dict[str, str]:
    """Return how Spark's source reaches Kafka."""
    return {
        "kafka.bootstrap.servers": values.kafka,
        **{f"kafka.{name}": value for name, value in kafka_security.for_java(kafka_security.properties()).items()},
    }


def _every_window(bus: KafkaBus, names: Topics) -> list[Window]:
    return _windows(bus.records(names.aggregates.name, bus.ends(names.aggregates.name)))


def _windows(records: Iterable[Record]) -> list[Window]:
    # Only their places count here, and a busy window lists a thousand types.
    every = (msgspec.structs.replace(each, reactions=[]) for _, each in readable(records, decode_window, "window"))
    return resume.of_the_job(every)


def last_windows(bus: Bus, topic: str, trigger_s: float) -> Sequence[Window]:
    """Return the job's last windows: all that are still remembered, without their reactions."""
    count = math.ceil(REMEMBERED_MS / 1000 / trigger_s) + TAIL
    return tail_until(bus, topic, count, _windows, lambda found: first_remembered(found) > 0)


def remembered(
    spark: SparkSession, values: settings.Settings, tail: Sequence[Window], counted: Mapping[int, int]
) -> Remembered:
    """Return the ids that were counted within the last ten minutes, read from the records of those windows.

    `tail` are the job's last windows. `counted` has of each partition the offset behind the last record that was
    counted.
    """
    windows = to_remember(tail, counted)
    behind = resume.behind(windows)
    spans = [(number_of(name), first) for window in windows for name, (first, _) in window.offsets.items()]
    if not behind:
        return Remembered.of(windows, Identified.none())
    first = {number: min(at for each, at in spans if each == number) for number in behind}
    topic = topics(values).events.name
    records = (
        spark.read.format("kafka")
        .options(**source_options(values))
        .option("assign", json.dumps({topic: sorted(behind)}))
        .option("startingOffsets", json.dumps({topic: {str(number): at for number, at in first.items()}}))
        .option("endingOffsets", json.dumps({topic: {str(number): at for number, at in behind.items()}}))
        # Retention may have removed some of them.
        .option("failOnDataLoss", "false")
        .load()
    )
    return Remembered.of(windows, Identified.of(identified(parse(records)).toArrow()))


def start(
    spark: SparkSession, values: settings.Settings, emitter: Emitter, offsets: Mapping[int, int]
) -> StreamingQuery:
    """Start the streaming query and return it; without a checkpoint it begins at `offsets`, or at the first record."""
    topic = topics(values).events.name
    first = json.dumps({topic: {str(number): offset for number, offset in offsets.items()}}) if offsets else "earliest"
    source = (
        spark.readStream.format("kafka")
        .options(**source_options(values))
        .option("subscribe", topic)
        .option("startingOffsets", first)
        # After an outage of Spark the backlog comes in several windows. One would need memory without a bound, and a
        # window that takes longer than its interval delays the next.
        .option("maxOffsetsPerTrigger", str(values.window_max))
        .option("kafka.fetch.max.wait.ms", str(FETCH_WAIT_MS))
        # Once a second: a topic, or the leader of its partitions, may appear after the job has started.
        .option("fetchOffset.numRetries", str(math.ceil(values.kafka_wait_s)))
        .load()
    )
    records = parse(source)
    if values.spark_master.startswith("local"):
        # One task and no shuffle: on two cores a warm micro-batch of 200 reactions took 0.34 s, and 0.39 s to 0.44 s
        # with one task per partition. On a cluster the tasks are worth their cost.
        records = records.coalesce(1)
    return (
        records.writeStream.queryName("emostream")
        .option("checkpointLocation", checkpoint_location(values.checkpoint_dir, values.run_dir))
        .trigger(processingTime=f"{round(values.trigger_s * 1000)} milliseconds")
        .foreachBatch(emitter)
        .start()
    )


def begin(
    spark: SparkSession,
    values: settings.Settings,
    bus: KafkaBus,
    meters: BatchMeters,
    others: OtherJobs,
    batches: Batches,
) -> tuple[StreamingQuery, Emitter]:
    """Start the query from its checkpoint, or in a new epoch if that does not fit; return it and its emitter.

    Raises EmoStreamError if it would be a new epoch, and `others` has windows of another job.
    """
    names = topics(values)
    topic = SameTopic(bus, names.events.name)
    folder = CheckpointFolder(spark, checkpoint_location(values.checkpoint_dir, values.run_dir), names.events.name)
    tail = last_windows(bus, names.aggregates.name, values.trigger_s)
    found = fitting(folder, bus, names, tail, partial(others.check_none, values.trigger_s))
    others.know(tail)
    emitter = Emitter(
        bus,
        names.events.name,
        names.aggregates.name,
        values.trigger_s,
        values.group_size,
        values.policy,
        meters,
        found.lost,
        remembered(spark, values, tail, found.offsets),
        DeadLetters(bus, names, STAGE),
        tail,
        topic.check,
        batches,
    )
    query = start(spark, values, emitter, found.offsets)
    # The query's id is part of the checkpoint, so it is the same after every restart.
    emitter.begin(str(query.id))
    return query, emitter


def archive(runtime: java.Java, connector: Iterable[Path]) -> Path:
    """Return where the archive of the JVM's classes is, or would be."""
    return class_archive.spark(runtime, (*shipped_jars(), *connector))


def run(values: settings.Settings) -> None:
    """Aggregate until a signal stops it; raises EmoStreamError if the query fails."""
    stop = lifecycle.stop_event()
    meters = BatchMeters(topics(values).events.name, values.trigger_s)
    with serving(values.host, values.metrics_port, collector_registry(meters), meters.health):
        aggregate(values, stop, meters)


def aggregate(
    values: settings.Settings, stop: threading.Event, meters: BatchMeters, archive_to: Path | None = None
) -> None:
    """Aggregate until `stop` is set; raises EmoStreamError if the query fails, or another job counts the same.

    `archive_to` is where the JVM writes its classes when it ends: see `pipeline.class_archive`.
    """
    runtime = java.find_java()
    names = topics(values)
    connector = jars.spark_connector_jars()
    spark = session(
        "emostream",
        values.spark_master,
        values.spark_memory,
        connector,
        str(runtime.home),
        class_archive.written(archive_to) if archive_to else class_archive.mapped(archive(runtime, connector)),
    )
    spark.sparkContext.setLogLevel("WARN")
    # pyspark replaces the handler of SIGINT; a stage must end in the same way on both signals.
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
    bus = KafkaBus(values.kafka, values.kafka_wait_s)
    bus.ensure(names.events, names.aggregates, names.progress, names.dead_letters)
    batches = Batches()
    spark.streams.addListener(Progress(bus, names.progress.name, meters, batches))
    others = OtherJobs(bus, names)
    query, emitter = begin(spark, values, bus, meters, others, batches)
    meters.epoch = epoch = str(query.id)
    log.info("aggregating", epoch=epoch, trigger_s=values.trigger_s)
    meters.query.mark()
    later = None
    try:
        # A JVM that hangs does not answer, and this process lives: its health says so.
        while query.isActive and later is None and not stop.wait(0.2):
            meters.loop.mark()
            later = others.later(epoch)
        failure = query.exception() if not query.isActive else None
    finally:
        query.stop()
        emitter.close()
        others.close()
        bus.close()
        spark.stop()
    if later is not None:
        raise EmoStreamError(others.error(later))
    if failure is not None:
        raise EmoStreamError(
            f"the Spark query failed: {_reason(str(failure))}; the checkpoint is kept, so restart the job"
        )


def _reason(failure: str) -> str:
    """Return what ended the query in one line: our own error, if one was raised within a batch."""
    # Spark quotes the traceback of Python.
    own = re.search(r"^pipeline\.errors\.\w+: (.+)$", failure, re.MULTILINE)
    return own[1] if own else failure.splitlines()[0]


def main() -> None:
    """`python -m spark.job`."""
    values = settings.main(
        "spark.job", "Count the reactions of each micro-batch by emoji type and emit one window.", OPTIONS
    )
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("spark.job", lambda: run(values))


if __name__ == "__main__":
    environment.restart_without_others()
    main()
