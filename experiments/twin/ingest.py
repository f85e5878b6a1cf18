"""The twin's ingest: accepts reactions over HTTP, buffers them, and writes them to Kafka at planned moments."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from experiments.load.schedule import POPULAR_EMOJIS
from experiments.twin.clockwork import Clockwork
from experiments.twin.http import HttpConnection, answer
from experiments.twin.settings import REACTION_FATES, Span, Twin
from experiments.twin.truth import Reaction, Truth
from experiments.units import NS_PER_MS
from pipeline.emojis import canonical
from pipeline.errors import EmoStreamError
from pipeline.ingest import intake
from pipeline.messages import Event, encode
from pipeline.problems import Refusal

ARRAY_MAX = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Written = Callable[[Reaction], None]


def drawn_ns(rng: random.Random, span: Span) -> int:
    """Return a delay of `span` (ms), ns."""
    return round(rng.uniform(*span) * NS_PER_MS)


def fate_of(rng: random.Random, twin: Twin, fates: tuple[str, ...]) -> str:
    """Return one of `fates` by its share; an empty text stands for none of them."""
    at = rng.random()
    for fate in fates:
        at -= getattr(twin, fate)
        if at < 0:
            return fate
    return ""


class Topic:
    """The records of emoji-events that Kafka has acknowledged, by partition, in order of their offset."""

    def __init__(self, name: str, partitions: int, producer: Producer) -> None:
        self.name = name
        self.acknowledged: list[list[Reaction]] = [[] for _ in range(partitions)]
        self.failure: KafkaError | None = None
        self._producer = producer

    def write(self, reaction: Reaction, value: bytes, appended_ms: int) -> None:
        """Write one record at the append time given; it appears in `acknowledged` once Kafka has it.

        If the topic's records are stamped by the broker, the reaction gets that time.
        """
        partition = zlib.crc32(reaction.user_id.encode()) % len(self.acknowledged)
        reaction.appended_ns = appended_ms * NS_PER_MS
        self._producer.produce(
            self.name,
            value,
            reaction.user_id.encode(),
            partition=partition,
            timestamp=appended_ms,
            on_delivery=partial(self._delivered, reaction),
        )

    def _delivered(self, reaction: Reaction, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failure = error
            return
        reaction.partition, reaction.offset = message.partition(), message.offset()
        reaction.appended_ns = message.timestamp()[1] * NS_PER_MS
        self.acknowledged[message.partition() or 0].append(reaction)


class Ingest:
    """Answers `POST /reactions`, and flushes what it accepted on the flush grid."""

    def __init__(self, twin: Twin, clockwork: Clockwork, topic: Topic, truth: Truth) -> None:
        self._twin = twin
        self._clockwork = clockwork
        self._topic = topic
        self._truth = truth
        self._rng = random.Random(f"{twin.seed} ingest")
        self._fates = random.Random(f"{twin.seed} fates")
        self._lock = threading.Lock()
        self._waiting: list[Reaction] = []
        self._phantoms = 0

    def start(self) -> None:
        """Begin to flush."""
        now_ns = time.time_ns()
        self._clockwork.at(self._next_flush_ns(now_ns), self._flush)

    def handle(self, connection: HttpConnection, method: str, path: str, body: bytes) -> None:
        """Answer one request, after the planned delay."""
        arrived_ns = time.time_ns()
        if (method, path) == ("GET", "/healthz"):
            connection.send(answer(200, {"stage": "ingest", "status": "ok"}))
            return
        if (method, path) != ("POST", "/reactions"):
            status, title = (405, "Method Not Allowed") if path == "/reactions" else (404, "Not Found")
            connection.send(answer(status, {"title": title, "status": status, "detail": f"{method} {path}"}))
            return
        if connection.content_type != "application/json":
            connection.send(answer(415, {"title": "Not application/json", "status": 415}))
            return
        try:
            read = intake.read(body, ARRAY_MAX)
        except Refusal as refusal:
            connection.send(answer(refusal.status, {"title": refusal.title, "status": refusal.status}))
            return
        fates = [fate_of(self._fates, self._twin, REACTION_FATES) for _ in read]
        if "refuse" in fates:
            fates = ["refuse"] * len(read)
        reactions = [
            Reaction(each.user_id, (each.timestamp - EPOCH) // _MICROSECOND, emoji_type, fate, arrived_ns)
            for each, fate in zip(read, fates, strict=True)
            # `read` may leave another spelling as it was sent; what is written to Kafka has the canonical one.
            if (emoji_type := canonical(each.emoji_type)) is not None
        ]
        accept = partial(self._accept, connection, reactions)
        if delay_ns := drawn_ns(self._rng, self._twin.accept_ms):
            self._clockwork.at(arrived_ns + delay_ns, accept)
        else:
            accept()

    def _accept(self, connection: HttpConnection, reactions: list[Reaction]) -> None:
        self._truth.reactions += reactions
        if reactions[0].fate == "refuse":
            connection.send(answer(503, {"title": "Buffer full", "status": 503}, "Retry-After: 1"))
            return
        with self._lock:
            now_ns = time.time_ns()
            for reaction in reactions:
                reaction.accepted_ns = now_ns
            self._waiting += reactions
        connection.send(answer(202, b'{"accepted":%d}' % len(reactions)))

    def _next_flush_ns(self, now_ns: int) -> int:
        interval_ns = self._twin.flush_ms * NS_PER_MS
        if self._twin.flush_phase == "free":
            return now_ns + interval_ns
        lead_ns = self._twin.flush_lead_ms * NS_PER_MS
        return (now_ns + lead_ns) // interval_ns * interval_ns + interval_ns - lead_ns

    def _flush(self) -> None:
        self._clockwork.at(self._next_flush_ns(time.time_ns()), self._flush)
        delay_ns = drawn_ns(self._rng, self._twin.buffer_ms)
        if delay_ns:
            self._clockwork.at(time.time_ns() + delay_ns, self._take)
        else:
            self._take()

    def _take(self) -> None:
        with self._lock:
            flushed_ns = time.time_ns()
            reactions, self._waiting = self._waiting, []
        for reaction in reactions:
            reaction.flushed_ns = flushed_ns
        if reactions:
            moment_ns = flushed_ns + drawn_ns(self._rng, self._twin.append_ms)
            self._clockwork.at(moment_ns, lambda: self._append(reactions))

    def _append(self, reactions: list[Reaction]) -> None:
        if self._topic.failure is not None:
            raise EmoStreamError(f"Kafka refused a record: {self._topic.failure}")
        appended_ms = round(time.time_ns() / NS_PER_MS + self._twin.broker_offset_ms)
        copies: list[Reaction] = []
        for reaction in reactions:
            if reaction.fate == "lose":
                continue
            if reaction.fate == "alter":
                others = [emoji for emoji in POPULAR_EMOJIS if emoji != reaction.emoji_type]
                reaction.emoji_type = self._fates.choice(others)
            self._topic.write(reaction, _record(reaction), appended_ms)
            if reaction.fate == "duplicate":
                copies.append(
                    Reaction(
                        *(reaction.user_id, reaction.us, reaction.emoji_type, "copy", reaction.arrived_ns),
                        accepted_ns=reaction.accepted_ns,
                        flushed_ns=reaction.flushed_ns,
                    )
                )
        for copy in copies:
            self._topic.write(copy, _record(copy), appended_ms)
        self._truth.reactions += copies

    def phantoms(self, count: int) -> None:
        """Write records that nobody sent."""
        now_ns = time.time_ns()
        made = [
            Reaction(
                *(f"phantom-{self._phantoms + n:06d}", now_ns // 1000 + n, POPULAR_EMOJIS[n % 30], "phantom", now_ns),
                accepted_ns=now_ns,
                flushed_ns=now_ns,
            )
            for n in range(count)
        ]
        self._phantoms += count
        for reaction in made:
            self._topic.write(reaction, _record(reaction), now_ns // NS_PER_MS)
        self._truth.reactions += made


def _record(reaction: Reaction) -> bytes:
    moment = EPOCH + timedelta(microseconds=reaction.us)
    timestamp = msgspec.to_builtins(moment)
    stamps = (reaction.accepted_ns or 0, reaction.flushed_ns or 0)
    return encode(Event(reaction.user_id, reaction.emoji_type, timestamp, *stamps))
