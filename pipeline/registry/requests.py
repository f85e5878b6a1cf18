"""Reading the registry's requests: bodies, queries and tokens. Each function raises Refusal."""

from __future__ import annotations

import flask
import msgspec
from werkzeug.exceptions import RequestEntityTooLarge

from pipeline.http_messages import PAGE_MAX, NewClient
from pipeline.problems import Refusal
from pipeline.tokens import COOKIE, bearer

BODY_HELP = 'send {"cluster": "<name>", "transport": "sse" | "websocket" | "poll"}, both optional, or no body'
FIELDS = {
    "cluster": "it is not the name of a cluster: text of 1 to 50 letters, digits, '_' or '-'",
    "transport": "it is not the name of a transport",
}
_decode_new_client = msgspec.json.Decoder(NewClient).decode


def new_client(request: flask.Request) -> NewClient:
    """Return the body of `POST /clients`; no body means the defaults."""
    if request.args:
        raise Refusal(422, "Unusable registration", f"query field {next(iter(request.args))[:80]!a}: {BODY_HELP}")
    try:
        body = request.get_data()
    except RequestEntityTooLarge as error:
        raise Refusal(
            413, "Body too large", f"the body is larger than {request.max_content_length} bytes: {BODY_HELP}"
        ) from error
    if not body:
        return NewClient()
    if request.mimetype != "application/json":
        raise Refusal(
            415, "Not application/json", f"Content-Type is {request.mimetype[:80]!a}: send application/json, or no body"
        )
    try:
        return _decode_new_client(body)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at `$.")
        field = field.rstrip("`")
        where = f"field {field}: " if field else ""
        raise Refusal(422, "Unusable registration", f"{where}{_in_words(field, reason)}: {BODY_HELP}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "Malformed JSON", f"the body is not JSON ({error}): {BODY_HELP}") from error


def _in_words(field: str, reason: str) -> str:
    """Return what is wrong with a field, or with the body; msgspec's reason may speak of types or of a pattern."""
    if field:
        return FIELDS[field]
    return f"{reason[:1].lower()}{reason[1:200]}" if "unknown field" in reason else "the body is not an object"


def page_of(request: flask.Request) -> tuple[str, int]:
    """Return `after` and `limit` of `GET /clients`."""
    limit = request.args.get("limit", "1000")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= PAGE_MAX):
        raise Refusal(422, "Unusable limit", f"limit is {limit[:80]!a}: give a number from 1 to {PAGE_MAX}")
    return request.args.get("after", ""), int(limit)


def token_of(request: flask.Request, or_cookie: bool = False) -> str:
    """Return the token of the `Authorization` header, or without that header the one in the client's cookie."""
    authorization = request.headers.get("Authorization", "")
    token = bearer(authorization)
    if or_cookie and not authorization:
        token = request.cookies.get(COOKIE)
    if not token:
        form = "Authorization is not of the form 'Bearer <token>': " if authorization else ""
        raise Refusal(
            401,
            "Token missing",
            f"{form}send the token of POST /clients as 'Authorization: Bearer <token>'",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return token
