"""How a client talks HTTP: the session it needs, and what it makes of an answer that is no success."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec

from pipeline.errors import ClientError

CONNECT_S = 10.0
ANSWER_S = 15.0
"""How long an answer that is no stream may take, seconds: the registry itself waits up to 10 s for Kafka."""
SILENT_S = 45.0
"""A stream silent for so long is dead: three of the server's heartbeats."""
SHORT = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
DETAIL_MAX_BYTES = 4096


class _Problem(msgspec.Struct):
    detail: str = ""


_decode_problem = msgspec.json.Decoder(_Problem).decode


def open_session() -> aiohttp.ClientSession:
    """Return a session that any number of clients can share; whoever opened it closes it.

    It has no bound on connections, and keeps no cookies: the registry's would be one more a client to look through
    at each request, and a program sends its token as a header.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S),
    )


def unreachable(url: str, error: Exception) -> ClientError:
    """Return the error for a server that gave no answer."""
    said = str(error) or type(error).__name__
    return ClientError(f"no answer from {url}: {said}. Check that the chain is up and the address right")


async def refusal(answer: aiohttp.ClientResponse, wanted: str) -> ClientError:
    """Return the error for an answer that is not what was `wanted`, in the server's own words."""
    body = await answer.content.read(DETAIL_MAX_BYTES)
    try:
        detail = _decode_problem(body).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        detail = ""
    said = detail or body[:200].decode(errors="replace") or answer.reason or "nothing more"
    return ClientError(
        f"{answer.method} {answer.url} answered {answer.status} instead of {wanted}: {said}",
        status=answer.status,
        detail=detail,
        retry_after_s=retry_after_s(answer.headers.get("Retry-After"), time.time()),
    )


def retry_after_s(value: str | None, now_s: float) -> float:
    """Return what a `Retry-After` header asks for: seconds, or the time until a date (RFC 9110, section 10.2.3).

    0 where there is none, where it is past, and where it is neither.
    """
    if value is None:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        # A date of this form is in UTC by definition, whether it says so or not.
        at_s = parsedate_to_datetime(value).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
    return max(0.0, at_s - now_s)
