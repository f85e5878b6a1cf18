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


def post(url: str, body: bytes, timeout_s: float) -> HTTPResponse:
    """Send JSON in a POST and return the answer, as `get` does; an answer of 4xx or 5xx is raised as HTTPError."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    return cast(HTTPResponse, _DIRECT.open(request, timeout=timeout_s))
