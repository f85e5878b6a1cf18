"""The addresses of this machine: what a host stands for, and the URLs of stages."""

from __future__ import annotations

import socket

import psutil
import pytest

from pipeline import hosts
from pipeline.errors import SettingError
from tests.harness.network import needs_ipv6

NAMES = {
    "both": ["::1", "2001:db8::7", "127.0.0.1"],
    "six": ["::1"],
    "mapped": ["::ffff:127.0.0.1"],
    "elsewhere": ["192.0.2.1", "2001:db8::7"],
}


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve NAMES as a hosts file would, everything else as usual; forget what was asked before."""
    real = socket.getaddrinfo

    def resolve(host: str, *others: object, **options: object) -> list[object]:
        results: list[object] = []
        for each in NAMES.get(host, [host]):
            results += real(each, *others, **options)  # type: ignore[arg-type]
        return results

    monkeypatch.setattr(hosts.socket, "getaddrinfo", resolve)
    hosts.public_name.cache_clear()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        pytest.param("::1", "::1", marks=needs_ipv6),
        pytest.param("::", "::", marks=needs_ipv6),
        pytest.param("0:0:0:0:0:0:0:1", "::1", marks=needs_ipv6),
        ("localhost", "127.0.0.1"),
        ("both", "127.0.0.1"),
        pytest.param("six", "::1", marks=needs_ipv6),
        ("mapped", "127.0.0.1"),
    ],
)
def test_host_is_an_address_or_a_name_of_this_machine(host: str, address: str) -> None:
    """IPv4 comes first, and an address that cannot be listened on last."""
    assert hosts.local_address(host) == address


@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.1",
        "elsewhere",
        "no-such-host.invalid",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "127.0.0.1:80",
        "a b",
        "ü" * 70,
    ],
)
def test_host_of_another_machine_is_named(host: str) -> None:
    """An address of another machine, a name that does not resolve, and no address at all."""
    with pytest.raises(SettingError, match=rf"host is '{host}' \(.+\): give an address or a name of this machine"):
        hosts.local_address(host)


def test_name_of_an_interface_is_answered_with_its_address() -> None:
    """The likely intention."""
    name = next(name for name, found in psutil.net_if_addrs().items() if any(a.address == "127.0.0.1" for a in found))
    with pytest.raises(SettingError, match=rf"that of the interface {name} is 127\.0\.0\.1"):
        hosts.local_address(name)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("", "127.0.0.1", 80), "http://127.0.0.1:80"),
        (("", "::1", 80), "http://[::1]:80"),
        (("https://a/b/", "127.0.0.1", 80), "https://a/b"),
    ],
)
def test_base_url_can_be_called(arguments: tuple[str, str, int], expected: str) -> None:
    """An override is used as it is; an IPv6 address gets brackets."""
    assert hosts.base_url(*arguments) == expected


@pytest.mark.parametrize("wildcard", hosts.WILDCARDS)
def test_wildcard_becomes_the_machines_name(wildcard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients cannot call 0.0.0.0."""
    monkeypatch.setattr(hosts.platform, "node", lambda: "localhost")
    assert hosts.base_url("", wildcard, 80) == "http://localhost:80"


@pytest.mark.parametrize("wildcard", ["0.0.0.0", pytest.param("::", marks=needs_ipv6)])
def test_wildcard_becomes_an_address_if_the_name_does_not_resolve(
    wildcard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address of this machine, and without a network loopback."""
    monkeypatch.setattr(hosts.platform, "node", lambda: "no-such-host.invalid")
    name = hosts.public_name(wildcard)
    assert name not in hosts.WILDCARDS
    assert hosts.local_address(name) == name
    hosts.public_name.cache_clear()
    monkeypatch.setattr(hosts, "ELSEWHERE", dict.fromkeys(hosts.WILDCARDS, "no-address"))
    assert hosts.public_name(wildcard) == hosts.WILDCARDS[wildcard]


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("192.0.2.1", "http://192.0.2.1:80")],
)
def test_local_url_reaches_the_stage_from_this_machine(host: str, url: str) -> None:
    """A wildcard includes loopback; another address is listened on alone."""
    assert hosts.local_url(host, 80) == url
