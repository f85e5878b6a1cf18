"""Messages as the stages send them, with what a test does not care about filled in."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.messages import Announcement, Registration, TypeCount, Window
from pipeline.settings import Settings
from pipeline.tokens import token_sha256

NAMES = topics(Settings())
"""The topics by their names under the default settings."""

TIMESTAMP = "2026-11-23T21:00:00Z"


def reaction(user_id: str = "fan", emoji_type: str = "🎉", timestamp: str = TIMESTAMP) -> dict[str, str]:
    """The body of a POST to /reactions."""
    return {"user_id": user_id, "emoji_type": emoji_type, "timestamp": timestamp}


def window(number: int, epoch: str = "e", emoji: str = "😂", **changes: Any) -> Window:
    """A window of 38 reactions of one type; `changes` are fields of `Window`."""
    made = Window(epoch, number, 1, 2, {"emoji-events-0": (number, number)}, 38, [TypeCount(emoji, 38, 4)])
    return msgspec.structs.replace(made, **changes)


def announcement(
    cluster: str, subscriber: str, clients: int = 0, announced_ns: int | None = None, **changes: Any
) -> Announcement:
    """A subscriber's sign of life, given now; `changes` are fields of `Announcement`."""
    now_ns = time.time_ns() if announced_ns is None else announced_ns
    made = Announcement(subscriber, cluster, f"http://{cluster}{subscriber}", clients, now_ns)
    return msgspec.structs.replace(made, **changes)


def token(client_id: str) -> str:
    """The token of a client whose registration `registration` made."""
    return f"token-{client_id}"


def registration(client_id: str, cluster: str = "1", subscriber: str = "1", **changes: Any) -> Registration:
    """A client's registration; `changes` are fields of `Registration`."""
    made = Registration(client_id, token_sha256(token(client_id)), cluster, subscriber, 1)
    return msgspec.structs.replace(made, **changes)


def subscriber_bus(cluster: str = "1") -> MemoryBus:
    """A bus in memory with the topics that a subscriber needs."""
    bus = MemoryBus()
    bus.ensure(NAMES.clients, NAMES.subscribers, NAMES.feed(cluster))
    return bus
