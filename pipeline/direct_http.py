"""Requests to the chain's own addresses: never through a proxy, whatever the environment says."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from typing import cast

# A proxy may refuse loopback, or be on another machine, where loopback is not this one.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, timeout_s: float) -> HTTPResponse:
    """Send a GET and return the answer, which the caller closes. Raises URLError, or OSError after `timeout_s`."""
    return cast(HTTPResponse, _DIRECT.open(url, timeout=timeout_s))
