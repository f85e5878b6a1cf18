"""Which web pages may call a stage: those of the same host, on any port.

The registry serves the page; the page calls ingest and subscribers, which listen on other ports.
"""

from __future__ import annotations

from urllib.parse import urlsplit


def hostname(host: str) -> str:
    """Return the name in a `Host` header, without its port and in lower case; "" for a malformed or empty header."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def same_host(origin: str, host: str) -> bool:
    """Return whether an `Origin` header names the same host as the `Host` header."""
    scheme, _, rest = origin.partition("://")
    return scheme in {"http", "https"} and bool(hostname(rest)) and hostname(rest) == hostname(host)
