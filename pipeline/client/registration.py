"""A client's requests to the registry: register, ask for the redirect to its subscriber, unregister."""

from __future__ import annotations

import aiohttp
import msgspec
from aiohttp import hdrs

from pipeline.client.http import ANSWER_TIMEOUT, unexpected, unreachable
from pipeline.errors import ClientError


class Credentials(msgspec.Struct, frozen=True):
    """The answer of `POST /clients`: the client's id, its token, its stream's address, and its subscriber for now."""

    client_id: str
    token: str
    cluster: str
    subscriber: str
    stream_url: str

    @property
    def headers(self) -> dict[str, str]:
        """The header that authenticates a request."""
        return {hdrs.AUTHORIZATION: f"Bearer {self.token}"}


_decode_credentials = msgspec.json.Decoder(Credentials).decode


async def register(http: aiohttp.ClientSession, registry: str, cluster: str | None, transport: str) -> Credentials:
    """Register a client, in `cluster` or in the least loaded one.

    Raises ClientError if the registry does not answer or refuses, or if another service answers.
    """
    url = f"{registry}/clients"
    options = {"cluster": cluster, "transport": None if transport == "sse" else transport}
    body = {name: value for name, value in options.items() if value is not None}
    try:
        async with http.post(url, json=body, timeout=ANSWER_TIMEOUT, allow_redirects=False) as answer:
            if answer.status != 201:
                raise await unexpected(answer, "201")
            return _decode_credentials(await answer.read())
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise ClientError(f"the registry's URL is {registry!r}: give it as http://host:port") from error
    except msgspec.DecodeError as error:
        raise ClientError(f"{url} answered without a registration ({error}): give the registry's URL") from error
    except (aiohttp.ClientError, OSError) as error:
        raise unreachable(url, error) from error


async def redirect(http: aiohttp.ClientSession, credentials: Credentials) -> str:
    """Return where the client's stream is now: the redirect from its stable `stream_url`. Raises ClientError.

    The redirect's ticket is left out: it admits one request, and a polling client sends many. The redirect comes from
    the registry, which issued the token, so the caller may send the token instead.
    """
    url = credentials.stream_url
    try:
        async with http.get(url, headers=credentials.headers, timeout=ANSWER_TIMEOUT, allow_redirects=False) as answer:
            if answer.status != 307 or hdrs.LOCATION not in answer.headers:
                raise await unexpected(answer, "307")
            return answer.headers[hdrs.LOCATION].partition("?")[0]
    except (aiohttp.ClientError, OSError) as error:
        raise unreachable(url, error) from error


async def unregister(http: aiohttp.ClientSession, registry: str, credentials: Credentials) -> None:
    """End the registration; it may have ended already. Raises ClientError."""
    url = f"{registry}/clients/{credentials.client_id}"
    headers = credentials.headers
    try:
        async with http.delete(url, headers=headers, timeout=ANSWER_TIMEOUT, allow_redirects=False) as answer:
            if answer.status not in (204, 404, 410):
                raise await unexpected(answer, "204")
    except (aiohttp.ClientError, OSError) as error:
        raise unreachable(url, error) from error
