"""`Refusal`, raised by every HTTP stage to refuse a request, and its problem document (RFC 9457). No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

CONTENT_TYPE = "application/problem+json"


class Refusal(Exception):
    """A refused request; raised anywhere, translated into an answer once per framework.

    `title` names the kind of problem and is the same at every occurrence. `detail` names the setting or field, the
    value and the remedy. `headers` are those of the answer, such as Retry-After. `errors` lists each bad item of an
    array. A `status` below 400 has no body.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, object]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors

    def body(self) -> bytes:
        """Return the problem document; its content type is CONTENT_TYPE.

        `type` is left out, which means `about:blank` (RFC 9457, section 4.2.1). `errors` is an extension member
        (section 3.2).
        """
        if self.status < 400:
            return b""
        document: dict[str, object] = {"title": self.title, "status": self.status, "detail": self.detail}
        if self.errors is not None:
            document["errors"] = self.errors
        return msgspec.json.encode(document)
