"""Which pages may call a stage: those of the same host, and no page with a similar name."""

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
def test_hostname_has_no_port_and_no_brackets(host: str, name: str) -> None:
    """The name is in lower case; a malformed host gives an empty name."""
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
def test_another_port_of_the_same_host_is_allowed(origin: str, host: str) -> None:
    """The registry's page has the same host and another port."""
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
def test_other_hosts_and_malformed_origins_are_refused(origin: str, host: str) -> None:
    """Other hosts, an empty host, and origins that no web page has."""
    assert not same_host(origin, host)
