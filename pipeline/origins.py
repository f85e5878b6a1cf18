"""Which web pages may call a stage: one rule for ingest, the registry and the subscribers. Pure.

A browser names the page of a request in `Origin` (RFC 6454): scheme, host and port. A page may call a stage if it is
the registry's own page, or if the setting `origins` lists its origin. A request without `Origin` comes from a program,
or from a page of the stage itself, and passes.

A browser takes a page for one of the stage itself by the name in its address, and whoever owns a name may let it lead
to this machine (DNS rebinding). So the name in `Host` must be one that only this machine's users can have given.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from pipeline.problems import Refusal

DEFAULT_PORTS = {"http": 80, "https": 443}
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
"""The further headers of the answer to a preflight of an allowed origin."""

EXPOSED = "Location, Retry-After"
"""The headers of answers that a page of an allowed origin may read, beside those that every page may."""

LOCAL_DOMAINS = (".localhost", ".local", ".internal", ".home.arpa")
"""Domains that nobody can register: RFC 6761, RFC 6762, ICANN's private-use domain, RFC 8375."""

_KNOWN_HOSTS_MAX = 1_000

_ORIGIN = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_FORM = "http://host[:port] or https://host[:port]"


class Origin(NamedTuple):
    """A web origin in the form in which two are compared: lower case, the port always named."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://[{self.host}]{port}" if ":" in self.host else f"{self.scheme}://{self.host}{port}"


def parse_origin(text: str) -> Origin:
    """Return an origin, scheme://host[:port]. Raises ValueError, whose text has the reason and the remedy."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(_why_not(text))
    scheme, host = match[1].lower(), match[2].lower()
    port = int(match[3] or DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65535:
        raise ValueError(f"its port is {port}: give a port from 1 to 65535")
    # A name whose last part is a number is an IPv4 address to a browser (WHATWG URL, section 3.5).
    if host.startswith("[") or host.rpartition(".")[2].isdigit():
        try:
            host = str(ipaddress.ip_address(host.strip("[]")))
        except ValueError:
            raise ValueError(f"{host} is not an IP address: give a full address or a name") from None
    return Origin(scheme, host, port)


def _why_not(text: str) -> str:
    """Return why `text` is not an origin, and what to give instead."""
    if text == "null":
        return "every file and every sandboxed frame has this origin: serve the page over HTTP, and give its origin"
    if "*" in text:
        return f"a wildcard would allow pages that you do not know: list each origin, as {_FORM}"
    if not text.isascii():
        return "it is not ASCII: give the host's name as browsers send it, which begins with xn--"
    scheme, found, rest = text.partition("://")
    if not found:
        return f"it has no scheme: give {_FORM}"
    if scheme.lower() not in DEFAULT_PORTS:
        return f"its scheme is {scheme!r}: give the page's own scheme, http or https"
    base = f"{scheme}://{re.split('[/?#]', rest)[0]}"
    if base != text and _ORIGIN.fullmatch(base):
        return f"it has more than scheme, host and port: give {base}"
    return f"it is not an origin: give {_FORM}"


def parse_origins(text: str) -> frozenset[Origin]:
    """Return the origins of the setting `origins`, which are separated by commas; a "/" at the end of one is dropped.

    Raises ValueError with the entry, the reason and the remedy.
    """
    found = set()
    for entry in map(str.strip, text.split(",") if text.strip() else ()):
        if not entry:
            raise ValueError("one entry is empty: remove the extra comma")
        try:
            found.add(parse_origin(entry[:-1] if re.fullmatch("[^/]*//[^/]+/", entry) else entry))
        except ValueError as error:
            raise ValueError(f"entry {entry!a}: {error}") from None
    return frozenset(found)


def origin_of_url(url: str) -> Origin:
    """Return the origin of a page's URL. Raises ValueError, whose text has the reason and the remedy."""
    found = re.match("[^/?#]*://[^/?#]*", url)
    return parse_origin(found[0] if found else url)


def hostname(host: str) -> str:
    """Return the name in a `Host` header, without its port and in lower case; "" for a malformed or empty header."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Origins:
    """The rule of one stage.

    `listed` is the setting `origins`, `registry_url` that setting, which may be empty, and `registry_port` the port on
    which the registry listens, 0 if it is not known. `names` are names of this machine beside those that `has_name`
    always allows.
    """

    def __init__(self, listed: str, registry_url: str, registry_port: int, names: Iterable[str] = ()) -> None:
        own = (registry_url,) if registry_url else ()
        self._allowed = parse_origins(listed).union(map(origin_of_url, own))
        self._registry_port = registry_port
        self._names = {name.lower() for name in (*names, *(origin_of_url(url).host for url in own))}
        # Each request asks, and the few names of a chain cost a hash each.
        self.has_name = lru_cache(_KNOWN_HOSTS_MAX)(self._has_name)

    def _has_name(self, host: str) -> bool:
        """Return whether a request whose `Host` header is `host` named this machine in a way that no stranger can.

        That is an IP address, a name without a dot or in LOCAL_DOMAINS, one of `names`, or none: browsers send one.
        """
        name = hostname(host).rstrip(".")
        if not host or name in self._names or name.endswith(LOCAL_DOMAINS):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return bool(name) and "." not in name
        return True

    def check_name(self, host: str) -> None:
        """Raise Refusal 421 if `has_name` is false."""
        if not self.has_name(host):
            raise _misdirected(host)

    def allows(self, origin: str, host: str, *, ticket: bool = False) -> bool:
        """Return whether a page of `origin` may send a request whose `Host` header is `host`.

        `ticket` is whether the request has a ticket, which a client gets at the registry; the caller checks it. Three
        more origins are possible then. A browser sends `null` after a redirect from one foreign origin to another. The
        registry's page may have been opened by another name of this machine. And some libraries for WebSockets, such as
        websocket-client, send the origin of the address that they open.
        """
        if origin == "null":
            return ticket
        parsed = _parsed(origin)
        if parsed is None or parsed in self._allowed:
            return parsed is not None
        if parsed.port == self._registry_port:
            return ticket or (parsed.host == hostname(host) and self.has_name(host))
        return ticket and parsed == _parsed(f"{parsed.scheme}://{host}")

    def check(self, origin: str, host: str, *, ticket: bool = False) -> None:
        """Raise Refusal 403 if `allows` is false: before the request has any effect."""
        if not self.allows(origin, host, ticket=ticket):
            raise _refused(origin)


def _parsed(origin: str) -> Origin | None:
    try:
        return parse_origin(origin)
    except ValueError:
        return None


def _refused(origin: str) -> Refusal:
    setting = "setting origins (EMOSTREAM_ORIGINS, --origins)"
    try:
        remedy = f"add {parse_origin(origin)} to the {setting}, or open the page at the registry's own address"
    except ValueError as error:
        remedy = f"it cannot be listed in the {setting}: {error}"
    return Refusal(
        403,
        "Origin not allowed",
        f"Origin is {origin[:200]!a}, and pages of this origin may not call this stage: {remedy}",
        headers={"Vary": "Origin"},
    )


def _misdirected(host: str) -> Refusal:
    return Refusal(
        421,
        "Host not allowed",
        f"Host is {host[:200]!a}, and this name is not known to be this machine's: use its address, or add the name to "
        "the setting host_names (EMOSTREAM_HOST_NAMES, --host-names)",
        headers={"Vary": "Origin"},
    )


def headers_for(origin: str) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read an answer, whatever its status."""
    return {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": EXPOSED,
    }
