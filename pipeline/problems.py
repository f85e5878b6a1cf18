"""Problem documents (RFC 9457): how every HTTP stage says what went wrong."""

from __future__ import annotations

import msgspec

CONTENT_TYPE = "application/problem+json"


def problem(status: int, title: str, detail: str, **extra: object) -> tuple[bytes, str]:
    """Return a problem document as (body, content type).

    `title` names the kind of problem and is the same at every occurrence; `detail` names the culprit, the
    value seen and the remedy. `extra` are extension members (section 3.2), such as `errors=[...]`; any value
    msgspec can encode will do. The type is left out, which means `about:blank` (section 4.2.1).
    """
    document = {"title": title, "status": status, "detail": detail, **extra}
    return msgspec.json.encode(document), CONTENT_TYPE
