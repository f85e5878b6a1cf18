"""Which web pages may call a stage: those that come from the same host, whatever their port.

The page is served by the registry and calls ingest and subscribers, which listen on other ports.
"""

from __future__ import annotations

from urllib.parse import urlsplit


def hostname(host: str) -> str:
    """Return the name in a `Host` header, without its port and in small letters; "" when there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def same_host(origin: str, host: str) -> bool:
    """Whether an `Origin` header names the host that the `Host` header does."""
    scheme, _, rest = origin.partition("://")
    return scheme in {"http", "https"} and bool(hostname(rest)) and hostname(rest) == hostname(host)
