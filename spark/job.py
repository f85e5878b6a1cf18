"""The Spark job: `emoji-events` → one window record a micro-batch on `emoji-aggregates`.

State lives in Spark's checkpoint: which offsets belong to which window. A batch that is replayed after a crash
covers the same offsets under the same `(epoch, window)`, so the stages after it can drop the repetition. What policy
`carry` carries on lives in the windows themselves, and is read back from the end of `emoji-aggregates`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import listener as events
from pyspark.sql.streaming.listener import StreamingQueryListener
from pyspark.sql.streaming.query import StreamingQuery

from pipeline import jars, java, lifecycle, logs, settings
from pipeline.bus.base import Bus, Record
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError, MessageError
from pipeline.messages import Window, decode_window, encode
from pipeline.metrics.exposition import registry
from pipeline.metrics.server import serving
from spark.aggregation import aggregate, parse
from spark.metrics import STAGE, BatchMeters
from spark.policies import NOTHING
from spark.remainders import Remainders
from spark.session import session
from spark.window import trigger_ns, window

log = logs.get(__name__)

OPTIONS = (
    "bootstrap_servers",
    "kafka_wait_s",
    "topic_prefix",
    "partitions",
    "trigger_s",
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
# The source waits this long at the end of each partition's range; at Kafka's default of 500 ms that is most of a
# micro-batch's time.
FETCH_WAIT_MS = 20
# The last window and the one before it are what is needed; each may have been emitted more than once.
TAIL = 200


class Emitter:
    """Counts each micro-batch of parsed records; its window is on the aggregates topic before the batch commits."""

    def __init__(
        self,
        bus: Bus,
        events_topic: str,
        aggregates_topic: str,
        trigger_s: float,
        group_size: int,
        policy: str,
        meters: BatchMeters,
    ) -> None:
        self._writer = bus.writer()
        self._events_topic = events_topic
        self._aggregates_topic = aggregates_topic
        self._trigger_s = trigger_s
        self._group_size = group_size
        self._policy = policy
        self._last = list(_windows(bus.tail(aggregates_topic, TAIL))) if policy == "carry" else []
        self._remainders = Remainders()
        self._meters = meters
        self._previous_end_ns = 0
        self._epoch: Future[str] = Future()

    def begin(self, epoch: str) -> None:
        """Name the epoch of every window; batches wait for it, as the query has no id before it runs.

        The epoch's last windows then say what policy `carry` goes on from. Where Kafka has removed them
        (`retention_ms`), it begins with nothing: less than one group a type is never shown.
        """
        self._remainders = Remainders.of(self._last, epoch)
        self._epoch.set_result(epoch)

    def __call__(self, records: DataFrame, number: int) -> None:
        """Emit the window of one micro-batch; an error here makes Spark repeat the batch after a restart."""
        due_ns = trigger_ns(time.time_ns(), self._previous_end_ns, self._trigger_s)
        rows = [row.asDict() for row in aggregate(records).collect()]
        epoch = self._epoch.result()  # with it come the remainders
        record = window(
            rows,
            topic=self._events_topic,
            epoch=epoch,
            number=number,
            trigger_ns=due_ns,
            emitted_ns=time.time_ns(),
            group_size=self._group_size,
            policy=self._policy,
            carried=self._remainders.before(number),
        )
        if record is not None:
            self._writer.send(self._aggregates_topic, encode(record), key=record.epoch.encode())
            self._writer.flush()
            self._remainders.keep(number, record.carried or NOTHING)
            self._meters.emitted(record)
            log.info("window", id=record.event_id, total=record.total, types=len(record.reactions))
        self._previous_end_ns = time.time_ns()

    def close(self) -> None:
        """Close the connection to Kafka."""
        self._writer.close()


def _windows(records: Iterable[Record]) -> Iterator[Window]:
    for record in records:
        # Forwarding names what is no window; here it is just passed over.
        with suppress(MessageError):
            yield decode_window(record.value)


class Progress(StreamingQueryListener):
    """Puts Spark's own account of every micro-batch on a topic, for whoever measures it, and into our metrics."""

    def __init__(self, bus: Bus, topic: str, meters: BatchMeters) -> None:
        self._bus = bus
        self._meters = meters
        self._writer = bus.writer()
        self._topic = topic

    def onQueryStarted(self, event: events.QueryStartedEvent) -> None:
        """Nothing to tell."""

    def onQueryProgress(self, event: events.QueryProgressEvent) -> None:
        """Publish one progress report."""
        # Each look at it asks the JVM.
        report = event.progress.json.encode()
        self._writer.send(self._topic, report)
        self._meters.progress(report, self._bus)

    def onQueryIdle(self, event: events.QueryIdleEvent) -> None:
        """Nothing to tell."""

    def onQueryTerminated(self, event: events.QueryTerminatedEvent) -> None:
        """Send what is left."""
        self._writer.close()


def start(spark: SparkSession, values: settings.Settings, emitter: Emitter) -> StreamingQuery:
    """Start the streaming query and return it."""
    source = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", values.kafka)
        .option("subscribe", topics(values).events.name)
        .option("startingOffsets", "earliest")
        .option("kafka.fetch.max.wait.ms", str(FETCH_WAIT_MS))
        .load()
    )
    checkpoint = values.checkpoint_dir or str(Path(values.run_dir, "checkpoint").resolve())
    records = parse(source)
    if values.spark_master.startswith("local"):
        # One task and no shuffle: on two cores a warm micro-batch of 200 reactions took 0.34 s so, and 0.39 s to
        # 0.44 s with a task a partition. On a cluster the tasks are worth their price.
        records = records.coalesce(1)
    return (
        records.writeStream.queryName("emostream")
        .option("checkpointLocation", checkpoint)
        .trigger(processingTime=f"{round(values.trigger_s * 1000)} milliseconds")
        .foreachBatch(emitter)
        .start()
    )


def run(values: settings.Settings) -> None:
    """Aggregate until told to stop; raises EmoStreamError if the query fails."""
    stop = lifecycle.stop_event()
    meters = BatchMeters(topics(values).events.name, values.trigger_s)
    with serving(values.host, values.metrics_port, registry(meters), meters.health):
        _aggregate(values, stop, meters)


def _aggregate(values: settings.Settings, stop: threading.Event, meters: BatchMeters) -> None:
    found = java.find_java()
    names = topics(values)
    spark = session("emostream", values.spark_master, values.spark_memory, jars.spark_connector_jars(), str(found.home))
    spark.sparkContext.setLogLevel("WARN")
    # pyspark replaces the handler of SIGINT; a stage ends on both signals alike.
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
    bus = KafkaBus(values.kafka, values.kafka_wait_s)
    bus.ensure(names.events, names.aggregates, names.progress)
    emitter = Emitter(
        bus, names.events.name, names.aggregates.name, values.trigger_s, values.group_size, values.policy, meters
    )
    spark.streams.addListener(Progress(bus, names.progress.name, meters))
    query = start(spark, values, emitter)
    # The query's id lives in the checkpoint: it is the same after every restart.
    emitter.begin(str(query.id))
    meters.epoch = str(query.id)
    log.info("aggregating", epoch=str(query.id), trigger_s=values.trigger_s)
    while query.isActive and not stop.wait(0.2):
        pass
    failure = query.exception() if not query.isActive else None
    query.stop()
    emitter.close()
    bus.close()
    spark.stop()
    if failure is not None:
        raise EmoStreamError(f"the Spark query stopped: {str(failure).splitlines()[0]}; the checkpoint is kept")


def main() -> None:
    """`python -m spark.job`."""
    values = settings.main("spark.job", "Count each micro-batch's reactions by type.", OPTIONS)
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("spark.job", lambda: run(values))


if __name__ == "__main__":
    main()
