"""Identities of clusters and subscribers, and URLs of stages."""

from __future__ import annotations

from typing import NamedTuple

CLUSTER_NAME = r"^(?!.*-feed\Z)[A-Za-z0-9_-]{1,50}\Z"
"""A cluster "1-feed" would read the feed of cluster 1 as its source."""
SUBSCRIBER_NAME = r"^[A-Za-z0-9_-]{1,50}\Z"

NAME = "[A-Za-z0-9._-]+"
# A name, an IPv4 address, or an IPv6 address in brackets.
HOST = rf"({NAME}|\[[0-9A-Fa-f:.]+\])"
PORT = r"0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
HTTP_URL = rf"https?://{HOST}(:{PORT})?(/[A-Za-z0-9._~%/-]*)?"
"""The URL of a stage: a scheme, a host, and at most a port and a path. It has no character that ends a header."""


class SubscriberId(NamedTuple):
    """A subscriber's identity."""

    cluster: str
    subscriber: str

    @property
    def key(self) -> str:
        """Return the key of its announcements: `{cluster}/{subscriber}`."""
        return f"{self.cluster}/{self.subscriber}"

    @property
    def stage(self) -> str:
        """Return its name as a stage, in hops, logs and metrics."""
        return f"subscriber-{self.cluster}-{self.subscriber}"


def websocket_url(url: str) -> str:
    """Return an http:// or https:// URL as ws:// or wss://, for a WebSocket there."""
    return f"ws{url.removeprefix('http')}"


def url_of(name: str, port: int, scheme: str = "http") -> str:
    """Return scheme://name:port, with brackets around an IPv6 address."""
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
