"""The JSON documents of the HTTP interface: what clients send, and what the stages answer.

The OpenAPI documents have their schemas from these types.
`*_ns` are nanoseconds since 1970, `*_ms` milliseconds, `*_s` seconds. A field that may be unknown is null then; none is
left out. `pipeline.messages` has the documents that travel through Kafka too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from pipeline.messages import EmojiType, ReactionId, Transport, UserId, Window

PAGE_MAX = 10_000
"""The most clients in one answer of `GET /clients`."""


class Item(msgspec.Struct, frozen=True):
    """One bad reaction of an array.

    `index` is its place in the array, from 0. `field` is empty if the item is not an object.
    """

    index: int
    field: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was refused (RFC 9457).

    `type` identifies the kind of problem, and is its address in `/docs` of the stage that answered. `title` names the
    kind, and is the same at every occurrence. `detail` names the setting or field, the value and the remedy. `errors`
    is present for bad reactions only.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: list[Item] | msgspec.UnsetType = msgspec.UNSET


# ingest

UserNumber = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A user as databases number their rows; the same user as the text of its digits."""


class SentReaction(msgspec.Struct, frozen=True, gc=False):
    """One tap. Unknown fields are ignored."""

    user_id: UserId | UserNumber
    emoji_type: EmojiType
    timestamp: str | int | float
    reaction_id: ReactionId | None = None


class Accepted(msgspec.Struct, frozen=True):
    """How many reactions were accepted: all of the request."""

    accepted: int


class IngestHealth(msgspec.Struct, frozen=True):
    """The worker of ingest that answers.

    `status` is `ok`, or the reason why it is not. `accepted` counts its reactions since its start, `waiting` those that
    Kafka has not acknowledged.
    """

    stage: Literal["ingest"]
    status: str
    pid: int
    accepted: int
    waiting: int
    kafka_silent_s: float


# registry


class NewClient(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /clients`; without a cluster, the registry picks one."""

    cluster: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,50}$")] | None = None
    transport: Transport = "sse"


class ClientView(msgspec.Struct, frozen=True):
    """A registered client. `live` is whether its subscriber is."""

    client_id: str
    cluster: str
    subscriber: str
    registered_ns: int
    transport: Transport
    stream_url: str
    tickets_url: str
    live: bool


class RegisteredClient(ClientView, frozen=True):
    """A new client: its token, which is given here only, and the id to resume after at its first connection."""

    token: str
    last_event_id: str


class ClientList(msgspec.Struct, frozen=True):
    """Some of the registered clients; `count` is the number of all."""

    count: int
    clients: list[ClientView]


class TicketView(msgspec.Struct, frozen=True):
    """A ticket's address at a subscriber: it opens one stream within `expires_s`."""

    url: str
    subscriber: str
    expires_s: int


class SubscriberView(msgspec.Struct, frozen=True):
    """A subscriber. `clients` counts its open streams, `age_s` is the age of its last announcement."""

    subscriber: str
    url: str
    clients: int
    registered: int
    live: bool
    health: Literal["ok", "late", "silent"]
    age_s: float
    last_event_id: str | None


class ClusterView(msgspec.Struct, frozen=True):
    """A cluster: the open streams and the number of its live subscribers, and all its subscribers."""

    cluster: str
    clients: int
    live: int
    subscribers: list[SubscriberView]


class ClusterList(msgspec.Struct, frozen=True):
    """Every known cluster."""

    clusters: list[ClusterView]


class Targets(msgspec.Struct, frozen=True):
    """One entry of Prometheus' HTTP service discovery."""

    targets: list[str]
    labels: dict[str, str]


class RegistryHealth(msgspec.Struct, frozen=True):
    """The registry: its clients, and its live subscribers."""

    status: Literal["ok"]
    stage: Literal["registry"]
    clients: int
    subscribers_live: int
    stalled_s: float


# the page


class PageSettings(msgspec.Struct, frozen=True):
    """What the page needs to know; `after` is the id from which it replays."""

    ingest_url: str
    trigger_s: float
    group_size: int
    after: str | None
    now_ms: int


class Choice(msgspec.Struct, frozen=True):
    """One emoji of the picker.

    `words` are further names for the search. `version` is the Emoji version that added it: an older font cannot show
    it. `tones` holds its five forms from light to dark, or is empty.
    """

    emoji: str
    name: str
    words: str
    version: float
    tones: tuple[str, ...]


class Watching(msgspec.Struct, frozen=True):
    """How many watch, of how many registered clients, and when to ask again."""

    watching: int
    registered: int
    again_s: int


class BatchTimes(msgspec.Struct, frozen=True):
    """The time of micro-batches; `headroom` is the 95th percentile divided by the trigger interval."""

    newest_s: float | None
    p50_s: float | None
    p95_s: float | None
    headroom: float | None


class WindowRow(msgspec.Struct, frozen=True):
    """One of the last windows; `published_s` is the time from its trigger until its counts were ready."""

    id: str
    trigger_ms: int
    published_s: float
    total: int
    malformed: int


class BatchRow(msgspec.Struct, frozen=True):
    """One of the last micro-batches."""

    batch: int
    trigger_ms: int
    batch_s: float
    rows: int


class SampleRow(msgspec.Struct, frozen=True):
    """The rate and the consumer lag at one moment."""

    at_ms: int
    arriving_per_s: float | None
    lag: int | None


class MemberRow(msgspec.Struct, frozen=True):
    """A subscriber's last announcement."""

    cluster: str
    subscriber: str
    clients: int
    live: bool
    age_s: float
    last_event_id: str | None


class AlertRow(msgspec.Struct, frozen=True):
    """What is wrong with the chain now."""

    title: str
    detail: str


class OpsData(msgspec.Struct, frozen=True):
    """The state of the chain, for its operator.

    Rates are per second. `lag` counts the reactions that Spark has not read. `malformed` is the sum over `windows`, the
    probes of `up` included. `dead_letters` counts the records that a stage could not use, as far as they are kept.
    """

    now_ms: int
    trigger_s: float
    arriving_per_s: float | None
    counted_per_s: float
    lag: int | None
    batch: BatchTimes
    watching: int
    malformed: int
    dead_letters: int
    windows: list[WindowRow]
    batches: list[BatchRow]
    samples: list[SampleRow]
    subscribers: list[MemberRow]
    alerts: list[AlertRow]


# subscriber


class SubscriberHealth(msgspec.Struct, frozen=True):
    """A subscriber: its open streams, the registrations it knows, and the clients it has cut off since its start.

    `stalled_s` is how long it has not gone on reading its topics: under a second in health.
    """

    status: Literal["ok"]
    stage: str
    clients: int
    registered: int
    last_event_id: str | None
    feed_offset: int | None
    cut_off: int
    stalled_s: float


class Reset(msgspec.Struct, frozen=True):
    """Windows after `last_event_id` are missed and no longer kept; the stream goes on after `resumes_after`."""

    reason: str
    last_event_id: str
    resumes_after: str


class WindowEvent(msgspec.Struct, frozen=True, tag_field="event", tag="window"):
    """A window; `id` is the id to resume after."""

    id: str
    data: Window


class ResetEvent(msgspec.Struct, frozen=True, tag_field="event", tag="reset"):
    """A gap; `id` is the id after which the stream goes on."""

    id: str
    data: Reset


class BeginEvent(msgspec.Struct, frozen=True, tag_field="event", tag="begin"):
    """The beginning of a WebSocket that was opened without an id: `id` is the one to resume after."""

    id: str
    data: dict[str, Any]


class Poll(msgspec.Struct, frozen=True):
    """The events after the request's `after`; the next request sends this `after`."""

    events: list[WindowEvent | ResetEvent]
    after: str
