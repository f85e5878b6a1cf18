"""The messages between stages, and their JSON.

Times are epoch nanoseconds (`*_ns`, int), except a reaction's `timestamp`. A client may send it in any form of
`pipeline.timestamps.RULE`; an Event has it in RFC 3339 and UTC, with at most microseconds. Decoding raises MessageError
for a malformed message; unknown fields are ignored, so that a newer producer does not break an older consumer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from ipaddress import IPv6Address
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from pipeline.addresses import CLUSTER_NAME, HTTP_URL, SUBSCRIBER_NAME
from pipeline.errors import MessageError

USER_ID_MAX = 128
EMOJI_MAX = 64

REACTION_ID_MAX_BYTES = 64

UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=USER_ID_MAX)]
EmojiType = Annotated[str, msgspec.Meta(min_length=1, max_length=EMOJI_MAX)]
ReactionId = Annotated[str, msgspec.Meta(min_length=1, max_length=REACTION_ID_MAX_BYTES)]
"""Ingest allows no more bytes than this has characters."""

ClientId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,100}\Z")]
ClusterName = Annotated[str, msgspec.Meta(pattern=CLUSTER_NAME)]
SubscriberName = Annotated[str, msgspec.Meta(pattern=SUBSCRIBER_NAME)]
"""These names stand in URLs and headers, also those that a foreign record brings."""

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A count, an offset or a time: a foreign record's larger number would end a stage where it is added up."""

WINDOW_MAX_BYTES = 900_000
"""Every stage adds some 200 bytes, and a producer or a broker with Kafka's defaults takes a million: a larger window
would end each stage that passes it on, at each start. A window with every emoji has 240,000.
"""

JUMP_MAX = 10
"""A window whose partitions no earlier window of its epoch named has a number at most this much higher."""

Transport = Literal["sse", "websocket", "poll"]
"""How a client receives its windows."""

FEED_START = "earliest"
"""The id before a feed's first window."""

KEPT = "kept"
"""The id before the oldest window that a subscriber keeps."""


class Reaction(msgspec.Struct, frozen=True, gc=False):
    """What a client posts: the user, the emoji and the event time, in the usual forms (`pipeline.ingest.intake`).

    Of several reactions with one `reaction_id` within ten minutes, one counts.
    """

    user_id: UserId
    emoji_type: EmojiType
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    reaction_id: ReactionId | None = None


class Event(msgspec.Struct, frozen=True, gc=False):
    """One record of `emoji-events`: an accepted reaction.

    `accepted_ns` is when ingest added it to its buffer, `flushed_ns` when the flush that sent it started.
    """

    user_id: str
    emoji_type: str
    timestamp: str
    accepted_ns: Natural
    flushed_ns: Natural
    reaction_id: str | msgspec.UnsetType = msgspec.UNSET


class TypeCount(msgspec.Struct, frozen=True):
    """How often one emoji type occurred in a window, and how many representatives it gets on screen."""

    emoji_type: str
    count: Natural
    representatives: Natural


class Hop(msgspec.Struct, frozen=True):
    """One stage's stamp on a window: the window's offset in the stage's input, and when it was received and sent."""

    stage: str
    offset: Natural
    received_ns: Natural
    sent_ns: Natural


class Window(msgspec.Struct, frozen=True):
    """One micro-batch, from Spark to the screen. `(epoch, window)` identifies it permanently.

    `offsets` maps `"{topic}-{partition}"` to the first and last offset read (inclusive). `malformed` is the number of
    unreadable records in that range (probes, foreign writers); no count includes them. Each stage appends one hop to
    `hops`.

    `repeats` is set if records of the window carry ids: the number of those that were not counted, because the same id
    was counted within the ten minutes before, or earlier in the window (`spark.repeats`).

    `lost` is set on the first window of an epoch before which records were removed from Kafka uncounted: of each
    partition their first and last offset.

    `carried` is set on `emoji-aggregates` only, under policy `carry`: the reactions of each type that have no
    representative yet. They are added to the next window, so the last window is all the state that Spark's job needs.

    `appended_ms` is set there only, too: of each partition the time that Kafka gave the last record. If the record at
    that offset has another one later, it is another record (`spark.resume`).
    """

    epoch: str
    window: Natural
    trigger_ns: Natural
    emitted_ns: Natural
    offsets: dict[str, tuple[Natural, Natural]]
    total: Natural
    reactions: list[TypeCount]
    malformed: Natural = 0
    cluster: str | None = None
    hops: tuple[Hop, ...] = ()
    repeats: Natural | msgspec.UnsetType = msgspec.UNSET
    lost: dict[str, tuple[Natural, Natural]] | msgspec.UnsetType = msgspec.UNSET
    carried: dict[str, Natural] | msgspec.UnsetType = msgspec.UNSET
    appended_ms: dict[str, Natural] | msgspec.UnsetType = msgspec.UNSET

    @property
    def event_id(self) -> str:
        """The SSE event id, `<epoch>:<window>`."""
        return f"{self.epoch}:{self.window}"


REGISTRATION_MAX_BYTES = 4096
"""Ours have 300. Every subscriber keeps the id and the digest of each."""


class Registration(msgspec.Struct, frozen=True):
    """A client's assignment, kept in the compacted `client-registry` under its id; a null record ends it.

    Of the token only the SHA-256 is kept, which is also the key of the client's tickets (pipeline.tickets). `asked` is
    the cluster that the client requested, or None: the client is sent to another cluster only while that one has no
    live subscriber.
    """

    client_id: ClientId
    token_sha256: str
    cluster: ClusterName
    subscriber: SubscriberName
    registered_ns: Natural
    transport: Transport = "sse"
    asked: str | None = None


class Announcement(msgspec.Struct, frozen=True):
    """A subscriber's heartbeat on `subscribers`: its URL, its number of clients, and the last event that it sent.

    `held` lists some of those clients, a different part each time, and all of them within half a minute.
    """

    subscriber: SubscriberName
    cluster: ClusterName
    url: Annotated[str, msgspec.Meta(pattern=rf"^{HTTP_URL}\Z")]
    clients: Natural
    announced_ns: Natural
    last_event_id: str | None = None
    held: tuple[str, ...] = ()


class ClusterRoute(msgspec.Struct, frozen=True):
    """A cluster that gets windows, kept in the compacted `clusters` under its name; a null record ends it.

    `from_offset` is the first offset of `emoji-aggregates` that the cluster gets: the end of the topic when it joined.
    """

    cluster: ClusterName
    from_offset: Natural


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that `stage` could not use, for `reason`; kept in the compacted `dead-letters` under `id`.

    `key` and `value` are the record's own, base64 in JSON. Of a long one `value` has the beginning, and `size` says how
    many bytes it had.
    """

    stage: str
    topic: str
    partition: int
    offset: int
    reason: str
    key: bytes | None
    value: bytes | None
    size: Natural

    @property
    def id(self) -> str:
        """The record and the stage: a stage that reads the record again writes the same letter."""
        return f"{self.topic}-{self.partition}@{self.offset} {self.stage}"


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""`encode(message) -> bytes`: compact JSON."""


T = TypeVar("T")


def decoder(kind: type[T], bytes_max: int | None = None) -> Callable[[bytes | None], T]:
    """Return a function from JSON bytes to `kind`; it raises MessageError for anything else, also for None, and for
    more than `bytes_max`.
    """
    decode = msgspec.json.Decoder(kind).decode

    def decode_message(value: bytes | None) -> T:
        if value is None:
            raise MessageError(f"not a {kind.__name__}: the record is null")
        if bytes_max is not None and len(value) > bytes_max:
            raise MessageError(f"not a {kind.__name__}: it has {len(value)} bytes, {bytes_max} at most can go on")
        try:
            return decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"not a {kind.__name__}: {error}; saw {value[:80]!r}") from error

    return decode_message


decode_event = decoder(Event)
decode_window = decoder(Window, WINDOW_MAX_BYTES)
decode_registration = decoder(Registration, REGISTRATION_MAX_BYTES)
decode_cluster_route = decoder(ClusterRoute)
decode_dead_letter = decoder(DeadLetter)
_decode_announcement = decoder(Announcement)


def decode_announcement(value: bytes | None) -> Announcement:
    """Return the announcement in JSON bytes. Raises MessageError, also for a URL with brackets around no address."""
    announcement = _decode_announcement(value)
    try:
        if "[" in announcement.url:
            IPv6Address(urlsplit(announcement.url).hostname or "")
    except ValueError as error:
        raise MessageError(f"not an Announcement: url is {announcement.url[:80]!r}: {error}") from error
    return announcement


class HighWater:
    """The highest window seen in each epoch, and the last offset of each partition that the epoch's windows cover."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[int, Mapping[str, int]]] = {}

    def is_new(self, window: Window) -> bool:
        """Return whether `window` is above its epoch's mark."""
        mark = self._marks.get(window.epoch)
        return mark is None or window.window > mark[0]

    def follows(self, window: Window) -> bool:
        """Return whether a new `window` may follow those of its epoch that were seen.

        It covers records, and they lie behind all that were covered: only a window with records is emitted, and an
        epoch ends where offsets begin again. Then its number may be any, as after a time in which windows were removed
        before they were read. If it shares no partition with those before, its number is at most JUMP_MAX higher. A
        foreign record would otherwise be the mark, and all windows up to its number old.
        """
        if not window.offsets or any(first > last for first, last in window.offsets.values()):
            return False
        number, covered = self._marks.get(window.epoch, (window.window, {}))
        shared = covered.keys() & window.offsets.keys()
        if not shared:
            return window.window - number <= JUMP_MAX
        return all(window.offsets[name][0] > covered[name] for name in shared)

    def raise_to(self, window: Window) -> None:
        """Count `window` as seen."""
        if self.is_new(window):
            _, covered = self._marks.get(window.epoch, (0, {}))
            ends = {name: last for name, (_, last) in window.offsets.items()}
            self._marks[window.epoch] = window.window, {**covered, **ends}


def cannot_follow(window: Window) -> str:
    """Return why a stage does not use a window that does not follow: the reason of its dead letter."""
    return f"number and offsets of window {window.event_id} do not follow those of the windows before it"


def first_copies(windows: Iterable[Window]) -> Iterator[Window]:
    """Yield those of `windows`, in the order of their emission, that stages forward: the first copy of each."""
    marks = HighWater()
    for window in windows:
        if marks.is_new(window) and marks.follows(window):
            marks.raise_to(window)
            yield window
