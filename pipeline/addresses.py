"""Where clients can be: a subscriber's identity and its address."""

from __future__ import annotations

import platform
from typing import NamedTuple

WILDCARDS = frozenset({"", "0.0.0.0", "::"})


class SubscriberId(NamedTuple):
    """A subscriber's identity."""

    cluster: str
    subscriber: str

    @property
    def key(self) -> str:
        """The key of its announcements: `{cluster}/{subscriber}`."""
        return f"{self.cluster}/{self.subscriber}"

    @property
    def stage(self) -> str:
        """Its name as a stage, in hops, logs and metrics."""
        return f"subscriber-{self.cluster}-{self.subscriber}"


def base_url(override: str, host: str, port: int) -> str:
    """Return how clients reach a stage: `override`, else http://host:port, without a slash at its end.

    A wildcard address is nothing a client can call, so this machine's name stands for it.
    """
    if override:
        return override.rstrip("/")
    return url_of(platform.node() if host in WILDCARDS else host, port)


def url_of(name: str, port: int, scheme: str = "http") -> str:
    """Return scheme://name:port; an IPv6 address gets its brackets."""
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
