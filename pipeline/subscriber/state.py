"""What one subscriber knows: its windows, its clients' tokens, and its announcement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from pipeline import logs, settings
from pipeline.addresses import SubscriberId
from pipeline.bus.base import Record
from pipeline.bus.records import keyed, readable
from pipeline.bus.topics import topics
from pipeline.dead_letters import DeadLetters
from pipeline.errors import MessageError
from pipeline.messages import Announcement, HighWater, Hop, cannot_follow, decode_registration, decode_window
from pipeline.subscriber.fanout import Fanout
from pipeline.subscriber.metrics import StreamMeters
from pipeline.tickets import TicketGate
from pipeline.tokens import Tokens
from pipeline.turns import Turns

log = logs.get(__name__)

# An hour of windows of 6 s: as far back as a client can resume.
RING_MAX = 600
# Each announcement names one of these parts of the clients, so the registry sees every client twice a minute.
HELD_PARTS = 30


class Subscriber:
    """A subscriber's state. Only `announcement` may be called outside the event loop's thread.

    `from_offset` is where its cluster's route starts in `emoji-aggregates`; it does not send earlier windows.
    `letters`, which the caller closes, get the records that it cannot use.
    """

    def __init__(
        self,
        values: settings.Settings,
        url: str,
        clock_ns: Callable[[], int] = time.time_ns,
        from_offset: int = 0,
        letters: DeadLetters | None = None,
    ) -> None:
        self._letters = letters
        names = topics(values)
        self._feed, self._registrations = names.feed(values.cluster).name, names.clients.name
        self.id = SubscriberId(values.cluster, values.subscriber)
        self.url = url
        self.fanout = Fanout(RING_MAX, values.client_queue_max)
        self.tokens = Tokens(values.clients_max)
        self.followed: Sequence[Turns] = ()
        """Whether its topics are read."""
        self.gate = TicketGate(self.id.key, clock_ns)
        self._stage = self.id.stage
        self.meters = StreamMeters(self._stage, values.cluster, values.subscriber, self.fanout, self.tokens, self.gate)
        self._clock_ns = clock_ns
        self._newest = HighWater()
        self._feed_offset: int | None = None
        self._announcements = 0
        self._from_offset = from_offset
        # A cluster that was added later never had the first windows.
        self.fanout.has_earliest = from_offset == 0

    def take_history(self, records: Sequence[Record], first_offset: int) -> None:
        """Publish `records`, the feed's newest windows; `first_offset` is the first one's, or the feed's end."""
        self.take_feed(records, self._clock_ns(), live=False)
        if first_offset > 0:
            # There were earlier records: the ring has no room for them, or retention has removed them.
            self.fanout.has_earliest = False

    def take_feed(self, records: Sequence[Record], received_ns: int, live: bool = True) -> None:
        """Publish the new windows in `records` of the cluster's feed; measure them if they are `live`, not history."""
        if records:
            self._feed_offset = records[-1].offset
        for record, window in readable(records, decode_window, "window", self.unreadable):
            # A cluster that was removed and added again missed windows in between: those before the gap are not sent.
            if window.hops and window.hops[0].offset < self._from_offset:
                continue
            if not self._newest.is_new(window):
                log.info("dropped a window already forwarded", id=window.event_id)
                self.meters.windows.dropped("duplicate")
                continue
            if not self._newest.follows(window):
                log.error("skipped a window that cannot follow", id=window.event_id, offset=record.offset)
                self._unused("implausible", record, cannot_follow(window))
                continue
            self._newest.raise_to(window)
            hop = Hop(self._stage, record.offset, received_ns, self._clock_ns())
            started_s = time.perf_counter()
            try:
                self.fanout.publish(msgspec.structs.replace(window, hops=(*window.hops, hop)))
            except MessageError as error:
                log.error("skipped a window that cannot be sent", offset=record.offset, reason=str(error))
                self._unused("unsendable", record, str(error))
                continue
            if live:
                self.meters.published(window, hop.sent_ns, time.perf_counter() - started_s)

    def take_registrations(self, records: Iterable[Record], _received_ns: int = 0) -> None:
        """Update the tokens; end the streams of clients that were deleted or assigned to another subscriber."""
        skipped = 0
        for client_id, registration in keyed(records, decode_registration, "registration", self._misregistered):
            if registration is None:
                self.tokens.update(client_id, None)
                self.fanout.end(client_id, "deleted")
                continue
            if registration.client_id != client_id or not self.tokens.update(client_id, registration.token_sha256):
                skipped += 1
                continue
            if (registration.cluster, registration.subscriber) != self.id:
                self.fanout.end(client_id, "moved")
        if skipped:
            log.warning(
                "skipped registrations of another program: under another key, or beyond clients_max",
                registrations=skipped,
                clients_max=self.tokens.most,
            )

    def unreadable(self, record: Record, reason: str) -> None:
        """Count a record of the feed that is no window, and keep it as a dead letter."""
        self._unused("malformed", record, reason)

    def _unused(self, why: str, record: Record, reason: str) -> None:
        self.meters.windows.dropped(why)
        if self._letters is not None:
            self._letters.put(self._feed, record, reason)

    def _misregistered(self, record: Record, reason: str) -> None:
        if self._letters is not None:
            self._letters.put(self._registrations, record, reason)

    def announcement(self) -> Announcement:
        """Return the next announcement, which names one part of the clients."""
        newest = self.fanout.last_event_id
        self._announcements += 1
        held = tuple(
            client_id
            for client_id in self.fanout.clients()
            if (hash(client_id) - self._announcements) % HELD_PARTS == 0
        )
        return Announcement(
            subscriber=self.id.subscriber,
            cluster=self.id.cluster,
            url=self.url,
            clients=len(self.fanout),
            announced_ns=self._clock_ns(),
            last_event_id=None if newest is None else str(newest),
            held=held,
        )

    def health(self) -> dict[str, object]:
        """Return the answer to `GET /healthz`."""
        newest = self.fanout.last_event_id
        return {
            "status": "ok",
            "stage": self._stage,
            "clients": len(self.fanout),
            "registered": len(self.tokens),
            "last_event_id": None if newest is None else str(newest),
            "feed_offset": self._feed_offset,
            "cut_off": self.fanout.cut.total(),
            "stalled_s": round(max((each.stalled_s() for each in self.followed), default=0.0), 3),
        }
