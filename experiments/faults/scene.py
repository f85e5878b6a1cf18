"""A chain that is harmed while it works: its processes, its topics, its files, and the flow through it."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from confluent_kafka import Producer

from experiments.faults.flow import Flow, Sending, plainly
from experiments.faults.ledger import History, Regrown, Sent, Stored, uncovered
from experiments.run import chain, usage
from experiments.run.read_back import counted
from pipeline import direct_http
from pipeline.bus.base import Record
from pipeline.bus.connection import client_config
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import Topics, topics
from pipeline.errors import EmoStreamError, MessageError
from pipeline.lifecycle import claim_port
from pipeline.messages import Transport, Window, decode_window

SETTINGS: Mapping[str, Any] = {
    "trigger_s": 1.0,
    "flush_ms": 200,
    "flush_lead_ms": 50,
    "clusters": 2,
    "subscribers": 2,
    "ingest_workers": 2,
    "ack": "durable",
    "rate_per_user_s": 0,
}
RATE_PER_S = 200.0
CLIENTS: Sequence[tuple[str, Transport]] = (("1", "sse"), ("1", "websocket"), ("2", "poll"), ("2", "sse"))
SETTLED_S = 120.0
POLL_S = 0.2
# Its block manager fills two pools of a hundred threads each within the first half minute of work.
SPARK_THREADS = 260
STAGES = {
    "kafka": "pipeline.broker",
    "spark": "spark.job",
    "ingest": "pipeline.ingest",
    "registry": "pipeline.registry",
    "main-publisher": "pipeline.main_publisher",
    "cluster-publisher": "pipeline.cluster_publisher",
    "subscriber": "pipeline.subscriber",
}
"""Each stage's module; of stages with several processes all are meant."""
WHOLE = ""
"""In place of a stage: the whole chain, `up` included."""


class Usage(NamedTuple):
    """What the chain's processes hold: processes, threads, descriptors, and resident memory in MB."""

    processes: int
    threads: int
    descriptors: int
    memory_mb: float


class HarmedChain:
    """A chain in `folder`, and the flow of one scenario after the other through it; `past` is what earlier ones sent.

    Its random choices are those of `rng`. `wanted` is how many processes of each stage it had when it was ready.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.settings = {
            **SETTINGS,
            **settings,
            **{name: claim_port("127.0.0.1", 0, name) for name in ("ingest_port", "registry_port")},
        }
        self.past: list[Sent] = []
        self.gone: set[str] = set()
        """The ids of the reactions that Kafka lost before they were counted: these, and no others, are not counted."""
        self._regrown: Regrown | None = None
        self._seen: dict[tuple[int, int], Stored] = {}
        self._chain = ExitStack()
        self.endpoints: chain.Endpoints
        self.flow: Flow

    def up(self) -> None:
        """Start the chain, or start it again over what it left. Raises EmoStreamError if it does not become ready."""
        self._chain = ExitStack()
        self.endpoints = self._chain.enter_context(chain.started(self.settings, self.folder))
        self.wanted = self.stages()

    def down(self) -> None:
        """End the chain as Ctrl-C does."""
        self._chain.close()

    def flowing(
        self,
        rate_per_s: float,
        *,
        prefix: str,
        send: Sending = plainly,
    ) -> None:
        """Begin to send and to receive."""
        # Of its own: what is done to the chain does not depend on how far the senders are.
        rng = random.Random(self.rng.getrandbits(64))
        ingest, registry = self.endpoints.ingest, self.endpoints.registry
        self.flow = Flow(ingest, registry, rate_per_s, CLIENTS, prefix=prefix, rng=rng, send=send(rng))
        self.flow.start()

    # What is there.

    @property
    def names(self) -> Topics:
        """The chain's topics."""
        return topics(chain.settings_of(self.endpoints))

    @contextmanager
    def bus(self) -> Iterator[KafkaBus]:
        """Open a connection to the chain's Kafka."""
        with closing(KafkaBus(self.endpoints.bootstrap_servers)) as bus:
            yield bus

    def processes(self, stage: str = WHOLE) -> list[psutil.Process]:
        """Return the live processes of a stage, parents before children."""
        try:
            family = [psutil.Process(self.endpoints.pid), *psutil.Process(self.endpoints.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        if not stage:
            return [each for each in family if _lives(each)]
        heads = [each for each in family if STAGES[stage] in _words(each) and _lives(each)]
        found = {one.pid: one for head in heads for one in (head, *_children(head))}
        return list(found.values())

    def stages(self) -> Counter[str]:
        """Return how many processes of each stage `up` has started itself."""
        try:
            own = psutil.Process(self.endpoints.pid).children()
        except psutil.NoSuchProcess:
            own = []
        words = [_words(each) for each in own if _lives(each)]
        return Counter(stage for stage, module in STAGES.items() for each in words if module in each)

    def head(self, stage: str) -> psutil.Process:
        """Return the first process of a stage. Raises EmoStreamError if there is none."""
        found = self.processes(stage)
        if not found:
            raise EmoStreamError(f"there is no process of {stage}")
        return found[0]

    def usage(self) -> Usage:
        """Return what the chain holds now; of Spark's JVM the threads that it will have in any case."""
        rows = []
        spark = {each.pid for each in self.processes("spark")}
        for each in self.processes():
            with suppress(psutil.Error):
                least = SPARK_THREADS if each.pid in spark and each.name() == "java" else 0
                threads = max(each.num_threads(), least)
                rows.append((threads, each.num_fds(), each.memory_info().rss / 2**20))
        return Usage(len(rows), *(sum(column) for column in zip(*rows, strict=True)))

    def memory(self) -> dict[str, float]:
        """Return the resident memory of each process, in MB."""
        found = {}
        for each, stage in usage.processes((self.endpoints.pid,)):
            with suppress(psutil.Error):
                found[f"{stage} {each.pid}"] = each.memory_info().rss / 2**20
        return found

    def windows(self, emitted: bool = False) -> list[Window]:
        """Return the first copy of each window on `emoji-aggregates`; with `emitted` every copy."""
        with self.bus() as bus:
            found = _windows(bus.read(self.names.aggregates.name))
            # One that does not say when its records were appended is not of Spark's job.
            copies = [self._apart(window) for window in found if window.appended_ms]
        if emitted:
            return copies
        return History([], [], copies).forwarded()

    def stored(self) -> list[Stored]:
        """Return every record of `emoji-events`, those included that were there at an earlier call."""
        with self.bus() as bus:
            found = [_stored(record) for record in bus.read(self.names.events.name)]
        if self._regrown is not None:
            found = [self._regrown.record(each) for each in found]
        self._seen |= {(each.partition, each.offset): each for each in found}
        return list(self._seen.values())

    def deaths(self) -> int:
        """Return how many processes `up` has seen die since it was started."""
        # It logs each death as an event of its own.
        return (self.folder / "up.log").read_text(encoding="utf-8", errors="replace").count('"event": "died"')

    def lives(self) -> bool:
        """Return whether `up` runs."""
        return psutil.pid_exists(self.endpoints.pid) and _lives(psutil.Process(self.endpoints.pid))

    def health(self, stage: str, timeout_s: float = 5.0) -> dict[str, Any]:
        """Return what ingest or the registry answers at /healthz. Raises OSError."""
        with direct_http.get(f"{getattr(self.endpoints, stage)}/healthz", timeout_s) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    # What is done.

    def kill(self, *stages: str) -> None:
        """Kill every process of these stages at once (SIGKILL)."""
        for each in [process for stage in stages for process in self.processes(stage)]:
            with suppress(psutil.NoSuchProcess):
                each.kill()

    @contextmanager
    def halted(self, *stages: str) -> Iterator[None]:
        """Stop every process of these stages (SIGSTOP) meanwhile."""
        held = [process for stage in stages for process in self.processes(stage)]
        try:
            for each in held:
                each.send_signal(signal.SIGSTOP)
            yield
        finally:
            for each in held:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGCONT)

    def write(self, topic: str, *values: bytes | None, key: bytes | None = None) -> None:
        """Write records past the stages, as another program can."""
        producer = Producer({**client_config(self.endpoints.bootstrap_servers), "message.max.bytes": 4_000_000})
        for value in values:
            producer.produce(f"{self.endpoints.topic_prefix}{topic}", value, key)
        if left := producer.flush(30):
            raise EmoStreamError(f"Kafka did not take {left} of the foreign records")

    def crash(self) -> None:
        """Kill every process at once, `up` first, as a crash of the machine does. `up()` may follow."""
        for each in self.processes():
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.down()
        self.until(lambda: not left(self.folder), "every process has ended", 30)

    def lose(self, gone: Iterable[Stored], regrown: Mapping[int, int] | None = None) -> int:
        """Note that Kafka loses records which no window covers; return how many reactions are lost with them.

        `regrown` has, of each partition whose end it loses, the first offset that will have another record. Call it
        before they are lost.
        """
        lost = {(each.partition, each.offset) for each in gone}
        if regrown is not None:
            self._regrown = Regrown(frozenset(window.epoch for window in self.windows()), regrown)
        ids = {self._seen.pop(place).reaction_id for place in lost}
        # One that was sent again may have another record.
        ids -= {each.reaction_id for each in self._seen.values()}
        self.gone |= {each for each in ids if each is not None}
        return len(self.gone)

    def _apart(self, window: Window) -> Window:
        return window if self._regrown is None else self._regrown.window(window)

    # How it ends.

    def until(self, condition: Callable[[], object], what: str, within_s: float = SETTLED_S) -> None:
        """Wait for a condition. Raises EmoStreamError if it is not met in time; an error of its own counts as no."""
        deadline_s = time.monotonic() + within_s
        while True:
            last = ""
            try:
                if condition():
                    return
            except (OSError, EmoStreamError, LookupError) as error:
                last = f" ({error})"
            if time.monotonic() > deadline_s:
                raise EmoStreamError(f"after {within_s:g} s still not: {what}{last}")
            time.sleep(POLL_S)

    def until_flowing(self) -> None:
        """Wait until a reaction that is sent from now on is in a window."""
        mark = len(self.flow.told)
        self.until(lambda: self._counts_after(mark), "a new reaction is in a window")

    def _counts_after(self, mark: int) -> bool:
        new = {each.reaction_id for each in self.flow.sent()[mark:] if each.told == "accepted"}
        stored = [each for each in self.stored() if each.reaction_id in new]
        return len(uncovered(stored, self.windows())) < len(stored)

    def settle(self) -> History:
        """Send no more, wait until all is counted and received, and return what happened.

        What is still missing after SETTLED_S is missing: the checker names it.
        """
        self.flow.stop()
        with suppress(EmoStreamError):
            self.until(lambda: not uncovered(self.stored(), self.windows()), "every record is in a window")
        last = self.windows()[-1]

        def arrived() -> bool:
            newest = [next((each for each in reversed(seen) if each), None) for seen in self.flow.received.values()]
            return all(each is not None and each.event_id == last.event_id for each in newest)

        with suppress(EmoStreamError):
            self.until(arrived, "every client has the last window", 60.0)
        self.flow.close()
        if self.flow.failures:
            raise EmoStreamError(f"a client of the scenario failed: {self.flow.failures[0]!r}")
        self.past += self.flow.sent()
        received = {
            name: [each and self._apart(each) for each in windows] for name, windows in self.flow.received.items()
        }
        return History(self.past, self.stored(), self.windows(emitted=True), received)


def left(folder: Path) -> list[int]:
    """Return the processes of a chain that runs in `folder`."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if each.environ().get("EMOSTREAM_RUN_DIR") == str(folder) and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
    return found


def _windows(records: Iterable[Record]) -> Iterator[Window]:
    """Yield the windows; what poison is there is the stages' to report."""
    for record in records:
        with suppress(MessageError):
            yield decode_window(record.value)


def _stored(record: Record) -> Stored:
    kind, reaction_id = counted(record.value)
    return Stored(record.partition, record.offset, reaction_id, kind)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
