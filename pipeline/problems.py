"""`Refusal`, raised by every HTTP stage to refuse a request, and its problem document (RFC 9457). No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

CONTENT_TYPE = "application/problem+json"
BLANK = "about:blank"
"""The type of a problem that its status names completely, such as an unknown path (RFC 9457, section 4.2.1)."""


def type_of(title: str) -> str:
    """Return the type of the problems with this title: the address at which `/docs` of every HTTP stage explains it."""
    return f"/docs#{'-'.join(re.findall('[a-z0-9]+', title.lower().replace(chr(39), '')))}"


class Refusal(Exception):
    """A refused request; raised anywhere, translated into an answer once per framework.

    `title` names the kind of problem and is the same at every occurrence. `detail` names the setting or field, the
    value and the remedy. `headers` are those of the answer, such as Retry-After. `errors` lists each bad item of an
    array. `problem_type` is that of the title unless given. A `status` below 400 has no body.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, object]] | None = None,
        problem_type: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors
        self.problem_type = problem_type or type_of(title)

    def body(self) -> bytes:
        """Return the problem document; its content type is CONTENT_TYPE.

        `type` has no host: it is resolved against the request's address (section 3.1.1). `errors` is an extension
        member (section 3.2).
        """
        if self.status < 400:
            return b""
        document: dict[str, object] = {
            "type": self.problem_type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors is not None:
            document["errors"] = self.errors
        return msgspec.json.encode(document)
