"""The addresses of this machine: which of them a host stands for, and how others reach a server there."""

from __future__ import annotations

import functools
import ipaddress
import platform
import socket

import psutil

from pipeline.addresses import url_of
from pipeline.errors import SettingError

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""The addresses that stand for every address of this machine, each with the loopback address that reaches it."""
# Addresses for documentation. Connecting a UDP socket sends nothing: the system only chooses the sender's address.
ELSEWHERE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}


def local_address(host: str) -> str:
    """Return the address of this machine that `host`, an address or a name, stands for; IPv4 comes first.

    Raises SettingError if a server cannot listen there.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _unusable(host, error) from error
    for family, _, _, _, name in sorted(found, key=lambda each: each[0] != socket.AF_INET):
        address = ipaddress.ip_address(str(name[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            family, address = socket.AF_INET, address.ipv4_mapped
        try:
            if address.is_multicast or str(address) == "255.255.255.255":
                raise OSError("it stands for several machines")
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((str(address), 0))
            return str(address)
        except OSError as error:
            failure = error
    raise _unusable(host, failure) from failure


def _unusable(host: str, error: Exception) -> SettingError:
    reason = getattr(error, "strerror", None) or str(error)
    addresses = [each.address for each in psutil.net_if_addrs().get(host, []) if each.family == socket.AF_INET]
    example = (
        f"that of the interface {host} is {addresses[0]}" if addresses else "such as 127.0.0.1, or 0.0.0.0 for all"
    )
    return SettingError(f"host is {host!r} ({reason}): give an address or a name of this machine, {example}")


def loopback(address: str) -> str:
    """Return the address by which this machine itself reaches a server that listens on `address`."""
    return WILDCARDS.get(address, address)


@functools.cache
def public_name(address: str) -> str:
    """Return the name or address by which other machines reach a server that listens on `address`.

    For a wildcard that is this machine's name, or, where the name does not resolve, the address from which this machine
    sends; without a network, the loopback address.
    """
    if address not in WILDCARDS:
        return address
    family = socket.AF_INET if address == "0.0.0.0" else socket.AF_UNSPEC
    try:
        socket.getaddrinfo(platform.node(), None, family)
        return platform.node()
    except (OSError, UnicodeError):
        pass
    try:
        with socket.socket(socket.AF_INET if address == "0.0.0.0" else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((ELSEWHERE[address], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return loopback(address)


def base_url(override: str, host: str, port: int) -> str:
    """Return the URL of a stage for its clients: `override`, else http://host:port, without a trailing slash.

    Clients cannot call a wildcard address, so this machine's name or address replaces it.
    """
    return override.rstrip("/") or url_of(public_name(host), port)


def local_url(host: str, port: int) -> str:
    """Return the URL by which this machine itself reaches a stage that listens on `host`."""
    return url_of(loopback(host), port)
