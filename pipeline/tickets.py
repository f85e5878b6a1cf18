"""Tickets: each lets one client open one connection at one subscriber, once, within LIFE_S. Pure.

HTTP libraries drop a token at a redirect to another port, and a token must not stand in a URL. So the registry's
redirect carries a ticket instead, `<client>.<cluster>/<subscriber>.<issued ms>.<nonce>.<mac>`. The MAC is the
HMAC-SHA256 (RFC 2104) of the rest; its key is the digest of the client's token, which both stages have.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable
from typing import Literal, NamedTuple

from pipeline.problems import Refusal
from pipeline.units import NS_PER_MS, NS_PER_S

LIFE_S = 10
FIELD = "ticket"
"""The query's field that carries a ticket."""

Fault = Literal["malformed", "client", "subscriber", "expired", "used"]
_ANSWERS: dict[Fault, tuple[int, str]] = {
    "malformed": (401, "Malformed ticket"),
    "client": (403, "Another client's ticket"),
    "subscriber": (403, "Another subscriber's ticket"),
    "expired": (401, "Ticket expired"),
    "used": (401, "Ticket used before"),
}
FAULTS = tuple(_ANSWERS)

_LIFE_NS = LIFE_S * NS_PER_S
_TEXT_MAX = 400


class TicketRefusal(Refusal):
    """A ticket that opens nothing, and why."""

    def __init__(self, fault: Fault, detail: str) -> None:
        status, title = _ANSWERS[fault]
        remedy = "get a new one from stream_url's redirect or by POST to tickets_url"
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        super().__init__(status, title, f"{detail}: {remedy}", headers=headers)
        self.fault = fault


class Ticket(NamedTuple):
    """A ticket's fields; `subscriber` is the key of a SubscriberId."""

    client_id: str
    subscriber: str
    issued_ms: int
    nonce: str


def issue(digest: str, client_id: str, subscriber: str, now_ns: int, nonce: str) -> str:
    """Return a ticket for the client whose token has this digest; no two tickets have the same nonce."""
    fields = f"{client_id}.{subscriber}.{now_ns // NS_PER_MS}.{nonce}"
    return f"{fields}.{_mac(digest, fields)}"


def verify(text: str, digest: str, client_id: str, subscriber: str, now_ns: int) -> Ticket:
    """Return the ticket in `text` if it is valid here and now for this client. Raises TicketRefusal.

    The machine that issued it may have another clock: a ticket from up to LIFE_S in the future is valid too.
    """
    fields, _, mac = text.rpartition(".")
    ticket = _parse(fields) if len(text) <= _TEXT_MAX else None
    if ticket is None:
        raise TicketRefusal("malformed", f"ticket {text[:60]!a} is cut off or changed")
    if ticket.client_id != client_id:
        raise TicketRefusal("client", f"ticket belongs to client {ticket.client_id[:40]!a}, not to {client_id[:40]!a}")
    if ticket.subscriber != subscriber:
        raise TicketRefusal(
            "subscriber", f"ticket is for subscriber {ticket.subscriber[:40]!a}, this is {subscriber!a}"
        )
    if not hmac.compare_digest(mac.encode("utf-8", "surrogateescape"), _mac(digest, fields).encode()):
        raise TicketRefusal("malformed", f"ticket {text[:60]!a} is cut off or changed")
    age_s = (now_ns - ticket.issued_ms * NS_PER_MS) / NS_PER_S
    if age_s >= LIFE_S:
        raise TicketRefusal("expired", f"ticket is {age_s:.1f} s old and was valid for {LIFE_S} s")
    if age_s < -LIFE_S:
        raise TicketRefusal("expired", f"ticket is from {-age_s:.1f} s in the future (set both machines' clocks)")
    return ticket


class TicketGate:
    """Redeems the tickets of one subscriber, each once. It remembers a used one as long as it would be valid.

    `refused` counts refused tickets by fault.
    """

    def __init__(self, subscriber: str, clock_ns: Callable[[], int]) -> None:
        self.refused: Counter[str] = Counter()
        self._subscriber = subscriber
        self._clock_ns = clock_ns
        # Until when each used ticket would be valid, in the order of use.
        self._used_ns: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._used_ns)

    def redeem(self, text: str, client_id: str, digest: str) -> None:
        """Use up a ticket of this client, whose token has this digest. Raises TicketRefusal, and then uses up none."""
        now_ns = self._clock_ns()
        while self._used_ns and self._used_ns[oldest := next(iter(self._used_ns))] <= now_ns:
            del self._used_ns[oldest]
        try:
            ticket = verify(text, digest, client_id, self._subscriber, now_ns)
            if text in self._used_ns:
                raise TicketRefusal("used", "ticket was used before, and opens one connection only")
        except TicketRefusal as refusal:
            self.refused[refusal.fault] += 1
            raise
        self._used_ns[text] = ticket.issued_ms * NS_PER_MS + _LIFE_NS


def _parse(fields: str) -> Ticket | None:
    parts = fields.split(".")
    if len(parts) != 4 or not all(parts):
        return None
    client_id, subscriber, issued_ms, nonce = parts
    if not (issued_ms.isascii() and issued_ms.isdigit() and len(issued_ms) < 16):
        return None
    return Ticket(client_id, subscriber, int(issued_ms), nonce)


def _mac(digest: str, fields: str) -> str:
    return hmac.new(digest.encode(), fields.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
