"""A client's dealings with the registry: to register, to be led to a subscriber, to leave."""

from __future__ import annotations

import aiohttp
import msgspec
from aiohttp import hdrs

from pipeline.client.http import SHORT, refusal, unreachable
from pipeline.errors import ClientError


class Credentials(msgspec.Struct, frozen=True):
    """What `POST /clients` answers: who the client is, what opens its stream, and where it sits for now."""

    client_id: str
    token: str
    cluster: str
    subscriber: str
    stream_url: str

    @property
    def headers(self) -> dict[str, str]:
        """The header that proves who asks."""
        return {hdrs.AUTHORIZATION: f"Bearer {self.token}"}


_decode_ticket = msgspec.json.Decoder(Credentials).decode


async def register(session: aiohttp.ClientSession, registry: str, cluster: str | None, transport: str) -> Credentials:
    """Register a client, in `cluster` or wherever there is most room.

    Raises ClientError when the registry is out of reach, refuses, or is none.
    """
    url = f"{registry}/clients"
    wishes = {"cluster": cluster, "transport": None if transport == "sse" else transport}
    wanted = {name: wish for name, wish in wishes.items() if wish is not None}
    try:
        async with session.post(url, json=wanted, timeout=SHORT, allow_redirects=False) as answer:
            if answer.status != 201:
                raise await refusal(answer, "201")
            return _decode_ticket(await answer.read())
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise ClientError(f"the registry's URL is {registry!r}: give it as http://host:port") from error
    except msgspec.DecodeError as error:
        raise ClientError(f"{url} answered with no registration ({error}): give the registry's URL") from error
    except (aiohttp.ClientError, OSError) as error:
        raise unreachable(url, error) from error


async def lead(session: aiohttp.ClientSession, ticket: Credentials) -> str:
    """Return where the client's stream is now, as the stable `stream_url` says. Raises ClientError.

    The redirect is followed by hand: aiohttp, as it should, drops the token at one to another host or port. This one
    comes from the registry, which made the token.
    """
    url = ticket.stream_url
    try:
        async with session.get(url, headers=ticket.headers, timeout=SHORT, allow_redirects=False) as answer:
            if answer.status != 307 or hdrs.LOCATION not in answer.headers:
                raise await refusal(answer, "307")
            return answer.headers[hdrs.LOCATION]
    except (aiohttp.ClientError, OSError) as error:
        raise unreachable(url, error) from error


async def leave(session: aiohttp.ClientSession, registry: str, ticket: Credentials) -> None:
    """End the registration; one that is gone already is as good. Raises ClientError."""
    url = f"{registry}/clients/{ticket.client_id}"
    try:
        async with session.delete(url, headers=ticket.headers, timeout=SHORT, allow_redirects=False) as answer:
            if answer.status not in (204, 404, 410):
                raise await refusal(answer, "204")
    except (aiohttp.ClientError, OSError) as error:
        raise unreachable(url, error) from error
