"""Reading the registry's requests."""

from __future__ import annotations

import pytest

from pipeline.registry.requests import sender


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
        (None, ""),
    ],
)
def test_sender_is_an_ipv4_address_or_an_ipv6_network(address: str | None, counted: str) -> None:
    """All IPv6 addresses of one /64 network are one sender: a household can use any of them."""
    assert sender(address) == counted
