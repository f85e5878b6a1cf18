"""`python -m experiments.machine.class_archives`: write the classes from which Kafka and Spark start faster.

A small chain of the two runs until its first window is out, and each JVM writes what it has loaded as it ends: see
`pipeline.class_archive`. This takes about half a minute, once for each environment.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pyspark import SparkContext

from pipeline import class_archive, jars, java
from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.lifecycle import INTERRUPTED
from pipeline.messages import Event, encode
from pipeline.settings import Settings
from spark import job
from spark.metrics import BatchMeters

POLL_S = 0.2
END_S = 120.0
SHOWN_LINES = 20


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send what this process and those it starts print to `log`; an error then has its end."""
    kept = {number: os.dup(number) for number in (1, 2)}
    with log.open("wb") as file:
        for number in kept:
            os.dup2(file.fileno(), number)
    try:
        yield
    except (EmoStreamError, OSError) as error:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
        raise EmoStreamError(
            "\n".join([f"{error}; Kafka and Spark start without it, but more slowly", *lines])
        ) from error
    finally:
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)


@contextmanager
def whole(archive: Path) -> Iterator[Path]:
    """Yield where to write an archive; it gets its place once it is whole, and those that no longer fit go."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        beside = Path(folder, archive.name)
        yield beside
        if not beside.is_file():
            raise EmoStreamError(f"{archive} was not written: free disk space, and run make jars again")
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        for old in archive.parent.glob(f"{archive.stem.partition('-')[0]}-*.*"):
            if old.suffix in (".jsa", ".size"):
                old.unlink(missing_ok=True)
        class_archive.size_file(archive).write_text(str(beside.stat().st_size), encoding="ascii")
        beside.replace(archive)


def _first_window(bus: KafkaBus, topic: str, stop: threading.Event) -> None:
    while not stop.wait(POLL_S) and not bus.tail(topic, 1):
        pass
    stop.set()


def _spark(kafka: EmbeddedKafka, folder: Path, archive_to: Path) -> None:
    values = Settings(bootstrap_servers=kafka.bootstrap_servers, trigger_s=1.0, run_dir=str(folder))
    names = topics(values)
    with closing(KafkaBus(values.kafka)) as bus:
        bus.ensure(names.events, names.aggregates)
        with closing(bus.writer()) as writer:
            writer.send(names.events.name, encode(Event("anyone", "🔥", "2026-01-01T00:00:00Z", 1, 1)))
            writer.flush()
        stop = threading.Event()
        watching = threading.Thread(target=_first_window, args=(bus, names.aggregates.name, stop))
        watching.start()
        try:
            job.aggregate(values, stop, BatchMeters(names.events.name, values.trigger_s), archive_to)
        except BaseException:
            _end_jvm(kill=True)
            raise
        finally:
            stop.set()
            watching.join()
    _end_jvm(kill=False)


def _end_jvm(*, kill: bool) -> None:
    gateway = SparkContext._gateway
    if gateway is None:
        return
    if kill:
        gateway.proc.kill()
    else:
        gateway.shutdown()
        # The JVM ends with its standard input.
        gateway.proc.stdin.close()
    gateway.proc.wait(END_S)


def write() -> list[Path]:
    """Write the archives that are not there; return their paths. Raises EmoStreamError or OSError if one cannot be."""
    runtime = java.find_java()
    kafka_to = class_archive.kafka(runtime, jars.kafka_classpath())
    spark_to = job.archive(runtime, jars.spark_connector_jars())
    if not class_archive.is_whole(kafka_to) or not class_archive.is_whole(spark_to):
        with (
            tempfile.TemporaryDirectory() as folder,
            output_to(Path(folder, "log")),
            whole(kafka_to) as kafka_part,
            whole(spark_to) as spark_part,
            EmbeddedKafka(Path(folder, "kafka"), archive_to=kafka_part) as kafka,
        ):
            _spark(kafka, Path(folder, "run"), spark_part)
    return [kafka_to, spark_to]


def main() -> int:
    """`python -m experiments.machine.class_archives`."""
    argparse.ArgumentParser(
        prog="python -m experiments.machine.class_archives",
        description="Write the archives of classes from which Kafka and Spark start faster, once.",
    ).parse_args()
    # Spark's job ends on SIGINT as on SIGTERM; here both clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        written = write()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (EmoStreamError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for archive in written:
        sys.stdout.write(f"classes to start from: {archive} ({archive.stat().st_size >> 20} MiB)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
