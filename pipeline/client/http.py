"""A client's HTTP: its session, its timeouts, and the error for an answer it did not expect."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec
from yarl import URL

from pipeline.errors import ClientError, plain_reason

CONNECT_S = 10.0
ANSWER_S = 15.0
"""How long an answer that is not a stream may take, seconds: the registry itself waits up to 10 s for Kafka."""
SILENT_S = 45.0
"""A stream is dead after this many seconds without a byte: three of the server's heartbeats."""
ANSWER_TIMEOUT = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
DETAIL_MAX_BYTES = 4096


class _Problem(msgspec.Struct):
    detail: str = ""


_decode_problem = msgspec.json.Decoder(_Problem).decode


def open_session() -> aiohttp.ClientSession:
    """Return a session that any number of clients can share; its opener closes it.

    It does not limit connections. It keeps no cookies: it would search the cookies of all clients at each request, and
    a program sends its token as a header.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S),
    )


def unreachable(url: str, error: Exception) -> ClientError:
    """Return the error for a server that did not answer. It begins with what matters: a screen may cut it."""
    server = URL(url).origin()
    return ClientError(
        f"{plain_reason(error)}: no answer from {server}. Check that the chain is up and the address right"
    )


async def unexpected(answer: aiohttp.ClientResponse, expected: str) -> ClientError:
    """Return the error for an answer other than `expected`, with the server's own explanation."""
    body = await answer.content.read(DETAIL_MAX_BYTES)
    try:
        detail = _decode_problem(body).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        detail = ""
    explanation = detail or body[:200].decode(errors="replace") or answer.reason or "no explanation"
    return ClientError(
        f"status {answer.status} instead of {expected}: {explanation} ({answer.method} {answer.url})",
        status=answer.status,
        detail=detail,
        retry_after_s=retry_after_s(answer.headers.get("Retry-After"), time.time()),
    )


def retry_after_s(value: str | None, now_s: float) -> float:
    """Return the wait in a `Retry-After` header: seconds, or the time until a date (RFC 9110, section 10.2.3).

    0 for a missing header, a date in the past, and a malformed value.
    """
    if value is None:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        # A date of this form is in UTC by definition, with or without a zone.
        at_s = parsedate_to_datetime(value).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
    return max(0.0, at_s - now_s)
