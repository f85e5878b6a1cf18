"""What `POST /reactions` does with a body, whoever read it: its reactions go into the buffer, or are refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from pipeline.errors import BufferFullError
from pipeline.ingest import intake
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.messages import Reaction
from pipeline.problems import Refusal
from pipeline.rate_limit import RateLimit, sender_of
from pipeline.settings import Settings

JSON = "application/json"
BUFFER_RETRY_AFTER = {"Retry-After": "1"}
KAFKA_RETRY_AFTER = {"Retry-After": "5"}
DISK_RETRY_AFTER = {"Retry-After": "10"}


class Taken(NamedTuple):
    """The reactions of a request as they wait in the buffer, and the future of their flush."""

    records: list[bytes]
    flushed: Future[Mapping[bytes, str]]

    @property
    def answer(self) -> bytes:
        """The body of the answer 202."""
        return b'{"accepted":%d}' % len(self.records)

    def check(self, refused: Mapping[bytes, str]) -> None:
        """Raise Refusal 503 if one of the records is among those that Kafka `refused` (record → reason)."""
        if reasons := [refused[record] for record in self.records if record in refused]:
            counted = len(self.records) - len(reasons)
            again = f"; {counted} others are counted, and would be twice if they were sent again" if counted else ""
            raise Refusal(
                503,
                "Kafka refuses reactions",
                f"Kafka refused {len(reasons)} of {len(self.records)} reactions permanently ({reasons[0]}){again}: "
                "check the topic and this stage's rights, then try again",
                headers=KAFKA_RETRY_AFTER,
            )


class Reactions:
    """One worker's way from a body to its buffer.

    With `ack=durable` the answer waits for `Taken.flushed`, at most `durable_wait_s`: for the next flush, and Kafka's
    acknowledgement. After this time Kafka is out of reach.
    """

    def __init__(
        self,
        values: Settings,
        buffer: Buffer,
        flusher: Flusher,
        clock_ns: Callable[[], int] = time.time_ns,
        limit: RateLimit | None = None,
        address_limit: RateLimit | None = None,
    ) -> None:
        """The limits, per user and per address, are those of all workers; without one this worker has its own."""
        self.values = values
        self.buffer = buffer
        self.flusher = flusher
        self.durable = values.ack == "durable"
        self.durable_wait_s = values.flush_ms / 1000 + values.kafka_out_s
        self._limit = limit or RateLimit(values.rate_per_user_s)
        self._address_limit = address_limit or RateLimit(values.rate_per_address_s)
        self._clock_ns = clock_ns

    def take(self, body: bytes, size: int, headers: Mapping[str, Any]) -> Taken:
        """Append the reactions of `body` to the buffer: all, or none.

        `size` is that of the body as it was sent, in bytes; of one that is too large, `body` may be a part. `headers`
        has the names of a WSGI environment. Raises Refusal with the status of the answer.
        """
        content_type = headers.get("CONTENT_TYPE", "")
        if content_type != JSON and content_type.partition(";")[0].strip().lower() != JSON:
            raise Refusal(
                415,
                "Not application/json",
                f"Content-Type is {content_type!r}: send Content-Type: application/json",
            )
        if size > self.values.body_max_bytes:
            raise Refusal(
                413,
                "Body too large",
                f"the body is larger than {self.values.body_max_bytes} bytes (body_max_bytes): split it",
            )
        reactions = intake.read(body, self.values.array_max, headers)
        if key := headers.get("HTTP_IDEMPOTENCY_KEY"):
            reactions = intake.with_ids(reactions, key)
        self._check_rates(reactions, headers)
        self._check_kafka()
        records = intake.records(reactions, self._clock_ns())
        try:
            return Taken(records, self.buffer.add(records))
        except BufferFullError as error:
            raise Refusal(503, "Buffer full", str(error), headers=BUFFER_RETRY_AFTER) from error

    def not_acknowledged(self) -> Refusal:
        """Return the refusal of reactions whose flush has not ended within `durable_wait_s`."""
        return Refusal(
            503,
            "Kafka did not acknowledge",
            f"no acknowledgement within {self.durable_wait_s:g} s; the reactions are kept and sent when Kafka "
            "answers, so sending them again may count them twice",
            headers=KAFKA_RETRY_AFTER,
        )

    def _check_rates(self, reactions: Sequence[Reaction], headers: Mapping[str, Any]) -> None:
        """Count the reactions of each user and of the address; count none if one of them is over its limit."""
        now_ns, limit = self._clock_ns(), self._address_limit
        sender = sender_of(headers.get("REMOTE_ADDR", "")) if limit.most else ""
        if limit.is_over(sender, len(reactions), now_ns):
            raise intake.too_many_of_address(sender, limit.most)
        intake.check_rate(reactions, self._limit, now_ns)
        limit.hit(sender, len(reactions), now_ns)

    def _check_kafka(self) -> None:
        if reason := self.flusher.disk_full:
            raise Refusal(503, "Disk nearly full", f"{reason}; nothing was accepted", headers=DISK_RETRY_AFTER)
        if (silent_s := self.flusher.silent_s()) > self.values.kafka_out_s:
            raise Refusal(
                503,
                "Kafka is out of reach",
                f"Kafka has acknowledged nothing for {silent_s:.0f} s (kafka_out_s={self.values.kafka_out_s:g}); "
                "the reactions accepted before are kept: try again later",
                headers=KAFKA_RETRY_AFTER,
            )
        if reason := self.flusher.refuses():
            raise Refusal(
                503,
                "Kafka refuses reactions",
                f"Kafka refused a reaction of the last flush permanently ({reason}), so nothing was accepted: check "
                "the topic and this stage's rights, then try again",
                headers=KAFKA_RETRY_AFTER,
            )
