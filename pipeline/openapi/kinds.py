"""Every kind of problem that a stage answers with, as the documents list them. Pure."""

from __future__ import annotations

from typing import NamedTuple

from pipeline import problems


class Kind(NamedTuple):
    """One kind of problem: its status, its title, when it occurs and what to do, and the headers of the answer."""

    status: int
    title: str
    text: str
    headers: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """The `type` of its problem documents."""
        return problems.type_of(self.title)

    @property
    def slug(self) -> str:
        """The part of `type` after `#`."""
        return self.type.partition("#")[2]


RETRY = ("Retry-After",)
AUTHENTICATE = ("WWW-Authenticate",)

# Every stage

ORIGIN_NOT_ALLOWED = Kind(
    403,
    "Origin not allowed",
    "The request comes from a web page whose origin may not call this stage. Nothing was done. List the origin in the "
    "setting `origins`.",
)
HOST_NOT_ALLOWED = Kind(
    421,
    "Host not allowed",
    "The request calls this stage by a name that is not known to be this machine's. Nothing was done. Use its address, "
    "or list the name in the setting `host_names`.",
)
NOT_A_WEBSOCKET_ROUTE = Kind(
    400, "Not a WebSocket route", "A WebSocket handshake at a path that serves none. Open the client's `stream_url`."
)

# Ingest and the registry

BODY_TOO_SLOW = Kind(
    408, "Body too slow", "The body was not complete within ten seconds. Nothing was done. Send it again, at once."
)
BODY_TOO_LARGE = Kind(413, "Body too large", "The body has more bytes than this stage takes. Send fewer.")
TOO_MANY_UNFINISHED = Kind(
    503,
    "Too many unfinished requests",
    "Too many requests of this address have not sent their whole body. Nothing was done. Try again as `Retry-After` "
    "says.",
    RETRY,
)

# Ingest

NOT_JSON = Kind(400, "Not JSON", "The body is not JSON in UTF-8; a lone surrogate is not valid either. Fix it.")
ARRAY_TOO_LONG = Kind(413, "Array too long", "The array has more items than `array_max`. Split it.")
TOO_MANY_OF_ONE_USER = Kind(
    413,
    "Too many reactions of one user",
    "The array has more reactions of one user than `rate_per_user_s` allows in a second. Split it.",
)
NOT_APPLICATION_JSON = Kind(
    415, "Not application/json", "The content type of the body is not `application/json`. Send that one."
)
COMPRESSED_BODY = Kind(
    415,
    "Compressed body",
    "The body is compressed. Send it without `Content-Encoding`.",
    ("Accept-Encoding",),
)
NOT_A_REACTION = Kind(
    422,
    "Not a reaction",
    "A field is missing or wrong; `errors` names the index, the field and the detail of each bad item. Fix those: "
    "nothing was accepted.",
)
TOO_MANY_REACTIONS = Kind(
    429,
    "Too many reactions",
    "This user sends more reactions per second than `rate_per_user_s`, or this address more than `rate_per_address_s`. "
    "Wait as `Retry-After` says.",
    RETRY,
)
KAFKA_OUT = Kind(
    503,
    "Kafka is out of reach",
    "Kafka has not acknowledged in time. Nothing was done. Try again as `Retry-After` says.",
    RETRY,
)
DISK_FULL = Kind(
    503,
    "Disk nearly full",
    "The disk of Kafka has less than `disk_free_min_mb` free. Nothing was done. Make room; try again as `Retry-After` "
    "says.",
    RETRY,
)
BUFFER_FULL = Kind(503, "Buffer full", "`buffer_max` reactions wait for Kafka. Try again as `Retry-After` says.", RETRY)
KAFKA_REFUSES = Kind(
    503,
    "Kafka refuses reactions",
    "Kafka has refused a reaction permanently: the topic is gone, or this stage may no longer write to it. With "
    "`ack=durable` the answer is about these reactions, and says if some of them are counted. Try again as "
    "`Retry-After` says.",
    RETRY,
)
NOT_ACKNOWLEDGED = Kind(
    503,
    "Kafka did not acknowledge",
    "With `ack=durable`, Kafka has not acknowledged these reactions in time. They are kept and sent later: sending "
    "them again may count them twice.",
    RETRY,
)

# The registry

MALFORMED_JSON = Kind(400, "Malformed JSON", "The body is not JSON. Fix it, or send none.")
UNUSABLE_REGISTRATION = Kind(
    422,
    "Unusable registration",
    "A query, an unknown field, an unknown transport or a malformed cluster. Fix it, or send no body.",
)
TOO_MANY_REGISTRATIONS = Kind(
    429,
    "Too many registrations",
    "This address registered more clients in a minute than `registrations_per_address_min`. Wait as `Retry-After` "
    "says.",
    RETRY,
)
NO_LIVE_SUBSCRIBER = Kind(
    503, "No live subscriber", "No subscriber has announced itself recently. Try again as `Retry-After` says.", RETRY
)
TOO_MANY_CLIENTS = Kind(503, "Too many clients", "`clients_max` clients are registered. Try again later.", RETRY)
UNUSABLE_LIMIT = Kind(422, "Unusable limit", "`limit` is not a number in its range.")

# The registry and the subscribers

TOKEN_MISSING = Kind(
    401,
    "Token missing",
    "The request has no token, or `Authorization` is not of the form `Bearer <token>`. Send the client's own token.",
    AUTHENTICATE,
)
WRONG_TOKEN = Kind(403, "Wrong token", "The token is not that of this client. Send the client's own.")
NO_SUCH_CLIENT = Kind(404, "No such client", "The client is not registered, or not any more. Register one.")

# Subscribers

MALFORMED_TICKET = Kind(401, "Malformed ticket", "The ticket is cut off or changed. Get a new one.", AUTHENTICATE)
TICKET_EXPIRED = Kind(401, "Ticket expired", "The ticket is too old. Get a new one.", AUTHENTICATE)
TICKET_USED = Kind(
    401, "Ticket used before", "The ticket has opened a connection already. Get a new one.", AUTHENTICATE
)
ANOTHER_CLIENTS_TICKET = Kind(
    403, "Another client's ticket", "The ticket is of another client. Get one of this client."
)
ANOTHER_SUBSCRIBERS_TICKET = Kind(
    403, "Another subscriber's ticket", "The ticket is for another subscriber. Open `stream_url` again."
)
MALFORMED_EVENT_ID = Kind(
    400,
    "Malformed event id",
    "The id to resume after has not the form `<epoch>:<window>`. Send an id that you received.",
)
UNKNOWN_EVENT_ID = Kind(
    409,
    "Unknown event id",
    "The id to resume after lies beyond the newest window of its epoch: it is of another feed, or of the future. "
    "Connect without it to receive new windows.",
)
TOO_MANY_STREAMS = Kind(
    503,
    "Too many streams",
    "`connections_max` streams are open at this subscriber. Open `stream_url` again as `Retry-After` says.",
    RETRY,
)
WEBSOCKET_ONLY = Kind(
    426,
    "WebSocket only",
    "The request is not the handshake of a WebSocket. Open this address with a WebSocket client.",
    ("Upgrade",),
)
