"""Everything that travels between stages, and its JSON.

Times are epoch nanoseconds (`*_ns`, int), except a reaction's `timestamp`, which is ISO 8601 with a zone as the
client sent it. Decoding refuses what does not fit with a `MessageError`; unknown fields are passed over, so that
a newer producer does not stop an older consumer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from pipeline.errors import MessageError

USER_ID_MAX = 128
EMOJI_MAX = 64

Transport = Literal["sse", "websocket", "poll"]
"""How a client gets its windows."""


class Reaction(msgspec.Struct, frozen=True, gc=False):
    """What a client posts: who tapped which emoji, when (event time, zone required)."""

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=USER_ID_MAX)]
    emoji_type: Annotated[str, msgspec.Meta(min_length=1, max_length=EMOJI_MAX)]
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One record of `emoji-events`: an accepted reaction.

    `accepted_ns` is when ingest put it into its buffer, `flushed_ns` when the flush that carried it began.
    """

    user_id: str
    emoji_type: str
    timestamp: str
    accepted_ns: int
    flushed_ns: int


class TypeCount(msgspec.Struct, frozen=True):
    """How often one emoji type occurred in a window, and how many stand for it on screen."""

    emoji_type: str
    count: int
    representatives: int


class Hop(msgspec.Struct, frozen=True):
    """One stage's stamp on a window: the offset it read in its input topic, and when it read and sent it."""

    stage: str
    offset: int
    received_ns: int
    sent_ns: int


class Window(msgspec.Struct, frozen=True):
    """One micro-batch, from Spark to the screen. `(epoch, window)` identifies it for ever.

    `offsets` maps `"{topic}-{partition}"` to the first and last offset read (inclusive). `malformed` counts
    records in that range which are no reaction (probes, foreign writers): they are in no count. `hops` grows by
    one a stage, in order of travel.

    `carried`, on `emoji-aggregates` only and under policy `carry`: the reactions of each type that no representative
    stands for yet. They count on in the next window, so the last window is all the memory that Spark's job needs.
    """

    epoch: str
    window: int
    trigger_ns: int
    emitted_ns: int
    offsets: dict[str, tuple[int, int]]
    total: int
    reactions: list[TypeCount]
    malformed: int = 0
    cluster: str | None = None
    hops: tuple[Hop, ...] = ()
    carried: dict[str, int] | msgspec.UnsetType = msgspec.UNSET

    @property
    def event_id(self) -> str:
        """The SSE event id, `<epoch>:<window>`."""
        return f"{self.epoch}:{self.window}"


class Registration(msgspec.Struct, frozen=True):
    """A client's place, kept in the compacted `client-registry` under its id; a null record ends it.

    Only the token's SHA-256 is kept: whoever reads the topic cannot open a stream with it. `asked` is the cluster
    that the client wanted, if it wanted one: it is led elsewhere only while nobody lives there.
    """

    client_id: str
    token_sha256: str
    cluster: str
    subscriber: str
    registered_ns: int
    transport: Transport = "sse"
    asked: str | None = None


class Announcement(msgspec.Struct, frozen=True):
    """A subscriber's sign of life on `subscribers`: where it listens, how many clients it holds, what it sent.

    `held` names a part of those clients, another part each time, and all of them once a minute.
    """

    subscriber: str
    cluster: str
    url: str
    clients: int
    announced_ns: int
    last_event_id: str | None = None
    held: tuple[str, ...] = ()


class ClusterRoute(msgspec.Struct, frozen=True):
    """A cluster that windows go to, kept in the compacted `clusters` under its name; a null record ends it.

    `from_offset` is the first offset of `emoji-aggregates` that concerns the cluster: what came before it joined
    does not.
    """

    cluster: str
    from_offset: int


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""`encode(message) -> bytes`: compact JSON."""


T = TypeVar("T")


def decoder(kind: type[T]) -> Callable[[bytes | None], T]:
    """Return a function from JSON bytes to `kind`; it raises MessageError for anything else, null included."""
    decode = msgspec.json.Decoder(kind).decode

    def decode_message(value: bytes | None) -> T:
        if value is None:
            raise MessageError(f"a {kind.__name__} was expected and the record is null: skip it")
        try:
            return decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"not a {kind.__name__}: {error}; saw {value[:80]!r}") from error

    return decode_message


decode_event = decoder(Event)
decode_window = decoder(Window)
decode_registration = decoder(Registration)
decode_announcement = decoder(Announcement)
decode_route = decoder(ClusterRoute)


class HighWater:
    """The highest window seen in each epoch."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}

    def is_new(self, window: Window) -> bool:
        """Whether `window` lies above its epoch's mark."""
        return window.window > self._marks.get(window.epoch, -1)

    def raise_to(self, window: Window) -> None:
        """Count `window` as seen."""
        if self.is_new(window):
            self._marks[window.epoch] = window.window
