"""Which pages may call a stage: those of the same host, and no cleverly named other."""

from __future__ import annotations

import pytest

from pipeline.origins import hostname, same_host


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("live.example:8000", "live.example"),
        ("LIVE.example", "live.example"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "::1"),
        ("", ""),
        ("[::1", ""),
    ],
)
def test_the_name_is_what_stands_before_the_port(host: str, name: str) -> None:
    """Small letters, no port, no brackets; nothing for what is no host."""
    assert hostname(host) == name


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8000"),
        ("https://live.example", "live.example:8000"),
        ("http://Live.Example", "live.example"),
        ("http://[::1]:8080", "[::1]:8000"),
    ],
)
def test_another_port_of_the_same_host_may(origin: str, host: str) -> None:
    """The registry's page is of the same host, whatever its port."""
    assert same_host(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "127.0.0.1:8000"),
        ("http://127.0.0.1.evil.example", "127.0.0.1:8000"),
        ("http://localhost:8080", "127.0.0.1:8000"),
        ("null", "127.0.0.1:8000"),
        ("null", ""),
        ("file://", ""),
        ("", "127.0.0.1:8000"),
        ("ftp://127.0.0.1", "127.0.0.1:8000"),
        ("http://[::1", "[::1"),
    ],
)
def test_others_may_not(origin: str, host: str) -> None:
    """Other hosts, no host at all, and what is no web page's origin."""
    assert not same_host(origin, host)
