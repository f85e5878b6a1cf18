"""URLs of stages."""

from __future__ import annotations

import pytest

from pipeline.addresses import base_url


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
    assert base_url(*arguments) == expected


def test_wildcard_address_becomes_the_machines_name() -> None:
    """Clients cannot call 0.0.0.0."""
    assert "0.0.0.0" not in base_url("", "0.0.0.0", 80)
