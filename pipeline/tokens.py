"""Clients' tokens: each opens its own client's stream, and only its digest is kept."""

from __future__ import annotations

import asyncio
import hashlib
import hmac

from pipeline.settings import DEFAULTS

COOKIE = "emostream_token"


def token_sha256(token: str) -> str:
    """Return the digest of a client's token: its SHA-256 as hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def matches(digest: str, token: str) -> bool:
    """Whether `digest` is that of `token`; the comparison takes the same time for every token."""
    return hmac.compare_digest(digest, token_sha256(token))


def bearer(authorization: str) -> str | None:
    """Return the token in an `Authorization: Bearer` header's value (RFC 6750), or None."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class Tokens:
    """The digest of every registered client's token, from the topic `client-registry`; of `most` clients at most."""

    def __init__(self, most: int = DEFAULTS.clients_max) -> None:
        self.most = most
        self._digests: dict[str, str] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._digests

    def update(self, client_id: str, digest: str | None) -> bool:
        """Set a client's digest; None ends the registration. Returns False if there is no room for a further client."""
        if digest is None:
            self._digests.pop(client_id, None)
            return True
        if client_id not in self._digests and len(self._digests) >= self.most:
            return False
        self._digests[client_id] = digest
        for waiter in self._waiters.get(client_id, ()):
            if not waiter.done():
                waiter.set_result(None)
        return True

    async def find(self, client_id: str, patience_s: float) -> str | None:
        """Return a client's digest, waiting up to `patience_s` for its registration."""
        if client_id not in self._digests:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiters = self._waiters.setdefault(client_id, set())
            waiters.add(waiter)
            try:
                await asyncio.wait_for(waiter, patience_s)
            except TimeoutError:
                pass
            finally:
                waiters.discard(waiter)
                if not waiters:
                    self._waiters.pop(client_id, None)
        return self._digests.get(client_id)
