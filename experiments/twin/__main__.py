"""`python -m experiments.twin --ready-file FILE`: run a twin until SIGTERM; a run attaches to it as to any chain."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import uvloop
from confluent_kafka import Producer

from experiments import files
from experiments.machine.scheduling import go_first
from experiments.twin.batches import Batches
from experiments.twin.clockwork import Clockwork
from experiments.twin.delivery import Delivery
from experiments.twin.http import Handle, HttpConnection
from experiments.twin.ingest import Ingest, Topic
from experiments.twin.settings import Twin, read
from experiments.twin.truth import Truth
from pipeline import lifecycle, logs
from pipeline.broker import EmbeddedKafka
from pipeline.bus.connection import LIBRARY_LOG, client_config
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.messages import encode
from pipeline.settings import Settings

HOST = "127.0.0.1"
# The clockwork must not wait long for another thread that runs Python.
SWITCH_S = 0.0001
FLUSH_S = 10.0


async def serve(twin: Twin, servers: str, prefix: str, run_dir: Path, ready_file: Path, started_s: float) -> None:
    """Run the twin on the Kafka at `servers` until SIGTERM or SIGINT, then write its truth. Raises EmoStreamError."""
    names = topics(Settings(topic_prefix=prefix, partitions=twin.partitions))
    bus = KafkaBus(servers)
    events = names.events
    if twin.append_time == "planted":
        events = type(events)(events.name, events.partitions, events.config | {"message.timestamp.type": "CreateTime"})
    bus.ensure(events, names.aggregates, names.progress)
    bus.close()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clockwork = Clockwork(lambda: loop.call_soon_threadsafe(stop.set))
    producer = Producer({**client_config(servers), "linger.ms": 0, "enable.idempotence": True}, logger=LIBRARY_LOG)
    truth = Truth()
    topic = Topic(events.name, twin.partitions, producer)
    ingest = Ingest(twin, clockwork, topic, truth)
    delivery = Delivery(twin, clockwork, truth)
    batches = Batches(
        *(twin, clockwork, topic, ingest, producer, names.aggregates.name, names.progress.name),
        delivery.publish,
        truth,
    )
    ingest_url = await _listen(ingest.handle)
    delivery.registry_url = await _listen(delivery.register)
    for subscriber in delivery.subscribers:
        subscriber.url = await _listen(delivery.streams_of(subscriber))
    clockwork.start()
    ingest.start()
    batches.start()
    polling = _Polling(producer)
    polling.start()
    ready: Mapping[str, object] = {
        "ingest": ingest_url,
        "registry": delivery.registry_url,
        "subscribers": [
            {"cluster": each.cluster, "subscriber": each.subscriber, "url": each.url} for each in delivery.subscribers
        ],
        "bootstrap_servers": servers,
        "topic_prefix": prefix,
        "run_dir": str(run_dir),
        "settings": twin.reported(),
        "pid": os.getpid(),
        "ready_s": round(time.monotonic() - started_s, 1),
    }
    go_first()
    gc.collect()
    gc.freeze()
    gc.disable()
    files.write_text(ready_file, encode(ready).decode() + "\n")
    await stop.wait()
    clockwork.close()
    polling.close()
    producer.flush(FLUSH_S)
    truth.write(run_dir / "truth", twin)
    if clockwork.failure is not None:
        raise EmoStreamError(f"the twin failed: {clockwork.failure!r}") from clockwork.failure


async def _listen(handle: Handle) -> str:
    """Serve on a free port; return its URL."""
    server = await asyncio.get_running_loop().create_server(lambda: HttpConnection(handle), HOST, 0, backlog=4096)
    return f"http://{HOST}:{server.sockets[0].getsockname()[1]}"


class _Polling:
    """The thread that takes Kafka's acknowledgements."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="acknowledgements", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._producer.poll(0.05)


def main() -> None:
    """`python -m experiments.twin`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.twin",
        description="Run a stand-in for the chain whose delays and faults are planted, until SIGTERM.",
    )
    line.add_argument("twin", type=Path, nargs="?", help="YAML with what is planted; none: a clean twin")
    line.add_argument("--ready-file", type=Path, required=True, help="file to write once the twin is ready")
    line.add_argument("--run-dir", type=Path, required=True, help="directory for Kafka's data and the truth")
    line.add_argument("--bootstrap-servers", default="", help="a Kafka that runs; none: start one")
    line.add_argument("--topic-prefix", default="", help="prefix of every topic's name")
    options = line.parse_args()
    logs.configure("twin", "error")
    started_s = time.monotonic()
    sys.setswitchinterval(SWITCH_S)
    lifecycle.follow_parent()
    try:
        twin = read(options.twin) if options.twin else Twin()
        run_dir = options.run_dir.resolve()
        run_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            servers = options.bootstrap_servers
            if not servers:
                servers = stack.enter_context(EmbeddedKafka(run_dir / "kafka")).bootstrap_servers
            uvloop.run(serve(twin, servers, options.topic_prefix, run_dir, options.ready_file.resolve(), started_s))
    except EmoStreamError as error:
        sys.exit(f"experiments.twin: {error}")


if __name__ == "__main__":
    main()
