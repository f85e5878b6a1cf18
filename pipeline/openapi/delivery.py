"""The OpenAPI document of the registry and the subscribers. Pure.

Both serve the paths of a client's stream: the registry redirects to the subscriber that holds the client. `x-stages`
says which of the two has a path, and which gives an answer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from pipeline import http_messages as messages
from pipeline import sse, tickets
from pipeline.messages import FEED_START
from pipeline.openapi import kinds
from pipeline.openapi.kinds import Kind
from pipeline.openapi.parts import (
    DOCS_PATH,
    HEADERS,
    JSON,
    OPENAPI,
    PARAMETERS,
    Part,
    answer,
    content,
    every_path,
    header,
    json_of,
    metrics,
    operation,
    own_paths,
    ref,
    schemas,
)
from pipeline.problems import CONTENT_TYPE
from pipeline.tokens import COOKIE

REGISTRY, SUBSCRIBER = "registry", "subscriber"
BOTH = (REGISTRY, SUBSCRIBER)
_REGISTRY = (REGISTRY,)

_TOKEN: list[dict[str, list[str]]] = [{"token": []}]
_TOKEN_OR_COOKIE = [*_TOKEN, {"cookie": []}]
_STREAM = [*_TOKEN_OR_COOKIE, {"ticket": []}]

_CLIENT_ID = "0d02ecaab61d496b8ad6f37d4137f2eb"
_EVENT_ID = "7046ddb0-6818-419e-a958-e353c4b56b23:7"
_TICKET = f"{_CLIENT_ID}.1/1.1795474530941.5a0f3f0c5f9d2b11.{'0' * 64}"
_TOKEN_TEXT = "IlnWmnD-L-4tyE0q7dtEue13BPmzKiwdFAdaE9UtAKU"
_ETAG = '"1795474530.9-4501-2134"'
_SUBSCRIBER_URL = "http://127.0.0.1:8081"

_TYPES = (
    messages.NewClient,
    messages.RegisteredClient,
    messages.ClientView,
    messages.ClientList,
    messages.TicketView,
    messages.ClusterList,
    messages.Targets,
    messages.RegistryHealth,
    messages.SubscriberHealth,
    messages.PageSettings,
    messages.Choice,
    messages.Watching,
    messages.OpsData,
    messages.Poll,
    messages.BeginEvent,
)

_PAGE_HEADERS = ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy")
_CACHE_HEADERS = ("ETag", "Cache-Control", *_PAGE_HEADERS)
_COPY_HEADERS = ("Accept-Ranges", "Content-Disposition", *_CACHE_HEADERS)
_FILE_HEADERS = ("Last-Modified", *_COPY_HEADERS)
_ASSIGN_KINDS = (
    kinds.TOKEN_MISSING,
    kinds.WRONG_TOKEN,
    kinds.NO_SUCH_CLIENT,
    kinds.NO_LIVE_SUBSCRIBER,
)
"""What the registry may refuse when it looks for a client's subscriber."""
_STREAM_KINDS = (
    kinds.MALFORMED_EVENT_ID,
    kinds.TOKEN_MISSING,
    kinds.MALFORMED_TICKET,
    kinds.TICKET_EXPIRED,
    kinds.TICKET_USED,
    kinds.WRONG_TOKEN,
    kinds.ANOTHER_CLIENTS_TICKET,
    kinds.ANOTHER_SUBSCRIBERS_TICKET,
    kinds.NO_SUCH_CLIENT,
    kinds.UNKNOWN_EVENT_ID,
    kinds.TOO_MANY_STREAMS,
)
"""What a subscriber may refuse."""


@functools.cache
def document() -> Part:
    """Return the document; the caller does not change it."""
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "EmoStream: registry and subscribers",
            "version": "0.1.0",
            "summary": "Registers clients, and sends them every window.",
            "description": "A client registers with `POST /clients` at the registry, and opens the `stream_url` of the "
            "answer with its token. The registry redirects to the subscriber that holds the client, which sends every "
            "window as a server-sent event, in a WebSocket's message, or in the answer to a poll. Both stages serve "
            "the paths of a stream: `x-stages` lists the stages that have a path, and those that give an answer.\n\n"
            "Errors are problem documents (RFC 9457). Names such as `clients_max` are settings of the chain. Reactions "
            "go to ingest, which has a document of its own at `/openapi.json`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {"url": "/", "description": "The stage that serves this document."},
            {"url": "http://127.0.0.1:8080", "description": "The registry, at its default address."},
            {
                "url": "http://{subscriber}",
                "description": "A subscriber: its address is in the answer of `GET /clusters`.",
                "variables": {
                    "subscriber": {"default": _SUBSCRIBER_URL.partition("//")[2], "description": "Host and port."}
                },
            },
        ],
        "tags": [
            {"name": "clients", "description": "Registering and leaving."},
            {"name": "streams", "description": "Windows, over one of three transports."},
            {"name": "operating", "description": "Clusters, health and metrics."},
            {"name": "page", "description": "The page for viewers, the one for operators, and their data."},
            {"name": "documents", "description": "This document."},
        ],
        "paths": _client_paths() | _stream_paths() | _operating_paths() | _page_paths() | own_paths(BOTH, _REGISTRY),
        "components": {
            "schemas": schemas(_TYPES, _EXAMPLES),
            "headers": HEADERS | _headers(),
            "parameters": PARAMETERS | _parameters(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of `POST /clients`, which opens this client's stream and ends its "
                    "registration.",
                },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": "The same token, as browsers have it; without `Authorization` it counts.",
                },
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": tickets.FIELD,
                    "description": "At a subscriber: opens one connection of one client at one subscriber, once, "
                    f"within {tickets.LIFE_S} s. The registry's redirect carries one. A request with a ticket is "
                    "judged by that alone.",
                },
            },
        },
        "x-every-path": every_path("Without `Origin`, the registry answers 200 with `Allow`, and a subscriber 405."),
        "externalDocs": {"url": DOCS_PATH, "description": "This document as a page."},
    }


_CLIENT = {
    "client_id": _CLIENT_ID,
    "cluster": "1",
    "subscriber": "1",
    "registered_ns": 1795474530941726277,
    "transport": "sse",
    "stream_url": f"http://127.0.0.1:8080/clients/{_CLIENT_ID}/stream",
    "tickets_url": f"http://127.0.0.1:8080/clients/{_CLIENT_ID}/tickets",
    "live": True,
}
_EXAMPLES: dict[str, object] = {
    "NewClient": {"cluster": "1", "transport": "sse"},
    "ClientView": _CLIENT,
    "RegisteredClient": {
        **_CLIENT,
        "token": _TOKEN_TEXT,
        "last_event_id": _EVENT_ID,
    },
    "TicketView": {
        "url": f"{_SUBSCRIBER_URL}/clients/{_CLIENT_ID}/stream?{tickets.FIELD}={_TICKET}",
        "subscriber": "1",
        "expires_s": tickets.LIFE_S,
    },
    "Watching": {"watching": 100, "registered": 120, "again_s": 5},
}


def _headers() -> Part:
    return {
        "Location": header("Where the client, or its stream, is.", f"{_SUBSCRIBER_URL}/clients/{_CLIENT_ID}/stream"),
        "Set-Cookie": header(
            "The client's token, HttpOnly and SameSite=Strict, for the client's path; or its removal.",
            f"{COOKIE}={_TOKEN_TEXT}; HttpOnly; Path=/clients/{_CLIENT_ID}; SameSite=Strict",
        ),
        "WWW-Authenticate": header("How to authenticate.", "Bearer", enum=["Bearer"]),
        "Upgrade": header("The protocol that this path speaks.", "websocket", enum=["websocket"]),
        "Connection": header("With `Upgrade`.", "Upgrade"),
        "Sec-WebSocket-Accept": header("The proof of the handshake (RFC 6455).", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "X-Accel-Buffering": header("Asks proxies not to hold events back.", "no", enum=["no"]),
        "X-Content-Type-Options": header("The media type is right.", "nosniff", enum=["nosniff"]),
        "Referrer-Policy": header("The page's address is not sent on.", "no-referrer", enum=["no-referrer"]),
        "ETag": header("The version of the file.", _ETAG),
        "Last-Modified": header("When the file was changed.", "Mon, 23 Nov 2026 21:00:00 GMT"),
        "Content-Disposition": header("The name of the file.", "inline; filename=index.html"),
        "Accept-Ranges": header("Parts of the file can be requested.", "bytes"),
        "Content-Range": header("Which part this is.", "bytes 0-99/4501"),
    }


def _parameter(name: str, place: str, description: str, example: str, required: bool = False, **schema: object) -> Part:
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": description,
        "schema": {"type": "string", **schema},
        "example": example,
    }


def _parameters() -> Part:
    resume = "Resume after this id: `<epoch>:<window>`, or `" + FEED_START + "` for the feed's beginning."
    return {
        "client_id": _parameter("client_id", "path", "The client's id.", _CLIENT_ID, required=True),
        "after": _parameter("after", "query", resume, _EVENT_ID),
        "Last-Event-ID": _parameter(
            sse.LAST_EVENT_ID, "header", f"{resume} It counts before `after`; an EventSource sends it.", _EVENT_ID
        ),
        "If-None-Match": _parameter("If-None-Match", "header", "Answer 304 if the file has this `ETag`.", _ETAG),
        "If-Match": _parameter("If-Match", "header", "Answer 412 unless the file has this `ETag`.", _ETAG),
        "If-Modified-Since": _parameter(
            "If-Modified-Since", "header", "Answer 304 if the file is older.", "Mon, 23 Nov 2026 21:00:00 GMT"
        ),
        "Range": _parameter("Range", "header", "Answer with this part of the file.", "bytes=0-99"),
        "Upgrade": _parameter("Upgrade", "header", "Of the handshake (RFC 6455).", "websocket"),
        "Connection": _parameter("Connection", "header", "Of the handshake.", "Upgrade"),
        "Sec-WebSocket-Key": _parameter("Sec-WebSocket-Key", "header", "Of the handshake.", "dGhlIHNhbXBsZSBub25jZQ=="),
        "Sec-WebSocket-Version": _parameter("Sec-WebSocket-Version", "header", "Of the handshake.", "13"),
    }


def _problem() -> Part:
    """Return the content of a problem of type `about:blank`."""
    return content(CONTENT_TYPE, ref("schemas", messages.Problem.__name__))


def _at(stage: str, found: Sequence[Kind]) -> list[tuple[Kind, str]]:
    return [(kind, stage) for kind in found]


def _parameters_of(*names: str) -> list[Part]:
    return [ref("parameters", name) for name in names]


# clients


def _client_paths() -> Part:
    common: dict[str, Any] = {"tag": "clients", "stages": _REGISTRY, "handshakes": _REGISTRY}
    return {
        "/clients": {
            "post": operation(
                "registerClient",
                "Register a client",
                "The registry chooses the client's id, token and subscriber. Open `stream_url` with the token, and "
                "again after every loss. Behind proxies, `proxies` says whose `X-Forwarded-For` counts for the limit "
                "per address.",
                requestBody={
                    "required": False,
                    "description": "Both fields are optional. There are no others.",
                    "content": {JSON: {"schema": ref("schemas", "NewClient")}},
                },
                answers={
                    201: answer(
                        "Registered.", json_of(messages.RegisteredClient), ["Location", "Set-Cookie", "Cache-Control"]
                    )
                },
                kinds=[
                    kinds.MALFORMED_JSON,
                    kinds.BODY_TOO_SLOW,
                    kinds.BODY_TOO_LARGE,
                    kinds.NOT_APPLICATION_JSON,
                    kinds.UNUSABLE_REGISTRATION,
                    kinds.TOO_MANY_REGISTRATIONS,
                    kinds.NO_LIVE_SUBSCRIBER,
                    kinds.TOO_MANY_CLIENTS,
                    kinds.TOO_MANY_UNFINISHED,
                    kinds.KAFKA_OUT,
                ],
                **common,
            ),
            "get": operation(
                "listClients",
                "List the clients",
                "The registered clients in the order of their ids, without tokens.",
                parameters=[
                    {
                        "name": "limit",
                        "in": "query",
                        "description": "The most clients in the answer.",
                        "schema": {"type": "integer", "minimum": 1, "maximum": messages.PAGE_MAX, "default": 1000},
                    },
                    {
                        "name": "after",
                        "in": "query",
                        "description": "List the clients whose ids come after this one.",
                        "schema": {"type": "string"},
                    },
                ],
                answers={200: answer("The clients.", json_of(messages.ClientList), ["Cache-Control"])},
                kinds=[kinds.UNUSABLE_LIMIT],
                **common,
            ),
        },
        "/clients/{client_id}": {
            "parameters": _parameters_of("client_id"),
            "get": operation(
                "getClient",
                "Show a client",
                "The client and its subscriber, without its token.",
                answers={200: answer("The client.", json_of(messages.ClientView), ["Cache-Control"])},
                kinds=[kinds.NO_SUCH_CLIENT],
                **common,
            ),
            "delete": operation(
                "removeClient",
                "Remove a client",
                "Ends the client's stream within a second; its token opens nothing any more. The token has to be in "
                "the header: the cookie does not count.",
                security=_TOKEN,
                answers={204: answer("Removed.", headers=["Set-Cookie"])},
                kinds=[kinds.TOKEN_MISSING, kinds.WRONG_TOKEN, kinds.NO_SUCH_CLIENT, kinds.KAFKA_OUT],
                **common,
            ),
        },
        "/clients/{client_id}/tickets": {
            "parameters": _parameters_of("client_id"),
            "post": operation(
                "issueTicket",
                "Get a ticket",
                "The direct address of the client's stream at its subscriber, for clients that follow no redirect. It "
                "opens one connection. The request's query is passed on, so that `?after=<id>` gives an address that "
                "resumes. There is no body.",
                security=_TOKEN_OR_COOKIE,
                parameters=_parameters_of("after"),
                answers={201: answer("The address.", json_of(messages.TicketView), ["Cache-Control"])},
                kinds=_ASSIGN_KINDS,
                **common,
            ),
        },
    }


# streams

_REDIRECT = (
    "The stream is at the subscriber in `Location`, whose query has a ticket. Follow it at every connection, and do "
    "not keep the address."
)
_GONE = "The client was deleted, and its EventSource reconnects with `Last-Event-ID`: the standard's sign to stop."
_SSE_EXAMPLE = (
    "retry: 1000\n\nid: 7046ddb0-6818-419e-a958-e353c4b56b23:6\n\n: connected\n\n"
    f'id: {_EVENT_ID}\nevent: window\ndata: {{"epoch":"7046ddb0-6818-419e-a958-e353c4b56b23","window":7,…}}\n\n'
)


def _stream_paths() -> Part:
    refused = [*_at(REGISTRY, _ASSIGN_KINDS), *_at(SUBSCRIBER, _STREAM_KINDS)]
    common: dict[str, Any] = {"tag": "streams", "stages": BOTH, "security": _STREAM}
    redirect = answer(_REDIRECT, headers=["Location", "Cache-Control"], stages=_REGISTRY)
    gone = answer(_GONE, stages=BOTH)
    subscriber = (SUBSCRIBER,)
    return {
        "/clients/{client_id}/stream": {
            "parameters": _parameters_of("client_id"),
            "get": operation(
                "openStream",
                "Server-sent events",
                "Windows as server-sent events until the client leaves. The stream begins with `retry`, the id from "
                "which it starts, and a comment. Each event has `id`, `event` and one line of `data`; comments in "
                "between keep the connection alive (`heartbeat_s`).",
                parameters=_parameters_of("after", "Last-Event-ID"),
                handshakes=_REGISTRY,
                answers={
                    200: answer(
                        "The stream. The registry answers so only while no subscriber is live, to a request whose "
                        "`Accept` names `text/event-stream`: with the reason as a comment and `retry`, and it ends at "
                        "once, since an EventSource never returns after a 503.",
                        {
                            sse.MEDIA_TYPE: {
                                "schema": {
                                    "type": "string",
                                    "description": "Events of type `window` and `reset`; `x-events` has the schemas of "
                                    "their data.",
                                    "x-events": {"window": ref("schemas", "Window"), "reset": ref("schemas", "Reset")},
                                },
                                "example": _SSE_EXAMPLE,
                            }
                        },
                        ["Cache-Control", "X-Accel-Buffering"],
                        BOTH,
                    ),
                    204: gone,
                    307: redirect,
                },
                kinds=refused,
                **common,
            ),
        },
        "/clients/{client_id}/socket": {
            "parameters": _parameters_of("client_id"),
            "get": operation(
                "openSocket",
                "WebSocket",
                "The handshake of a WebSocket (RFC 6455). Every message to the client is a JSON document with `id`, "
                "`event` and `data`; the first one of a socket that was opened without an id is `begin`. The client "
                "sends nothing. `x-websocket` has the messages and the close codes. A browser hides the answer to a "
                "handshake from its page: if the handshake has the `Origin` of an allowed page, a subscriber opens the "
                "socket instead of refusing it, and closes it with the reason.",
                parameters=_parameters_of(
                    "after", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Last-Event-ID"
                ),
                answers={
                    101: answer(
                        "The socket is open.",
                        headers=["Upgrade", "Connection", "Sec-WebSocket-Accept"],
                        stages=subscriber,
                    ),
                    200: answer(
                        "As for `…/stream` while no subscriber is live, to a plain request whose `Accept` names "
                        "`text/event-stream`.",
                        content(sse.MEDIA_TYPE, {"type": "string"}),
                        ["Cache-Control"],
                        _REGISTRY,
                    ),
                    204: gone,
                    307: redirect,
                },
                kinds=[*refused, (kinds.WEBSOCKET_ONLY, SUBSCRIBER)],
                **{
                    **common,
                    "x-websocket": {
                        "messages": [ref("schemas", name) for name in ("WindowEvent", "ResetEvent", "BeginEvent")],
                        "closeCodes": {
                            "1000": "The client was deleted (reason `deleted`), or it has a newer connection "
                            "(`replaced`): stop.",
                            "1001": "The subscriber stops, or the client is moved to another one: open `stream_url` "
                            "again.",
                            "1007": "The client sent a message that is not UTF-8: send nothing.",
                            "1008": "The client sent a message; or, to a browser, the request was refused: as the "
                            "reason says.",
                            "1009": "The client sent a message larger than 4 KiB: send nothing.",
                            "1013": "To a browser: too many streams are open. Come back later.",
                        },
                    },
                },
            ),
        },
        "/clients/{client_id}/windows": {
            "parameters": _parameters_of("client_id"),
            "get": operation(
                "pollWindows",
                "Long polling",
                "Answers as soon as there is an event, or after 25 s without one. Ask with the answer's `after` the "
                "next time: nothing that happens between two polls is missed.",
                parameters=_parameters_of("after", "Last-Event-ID"),
                handshakes=_REGISTRY,
                answers={
                    200: answer(
                        "The events since `after`. The registry answers with an empty event stream, as for `…/stream`, "
                        "while no subscriber is live and `Accept` names `text/event-stream`.",
                        json_of(messages.Poll) | content(sse.MEDIA_TYPE, {"type": "string"}),
                        ["Cache-Control"],
                        BOTH,
                    ),
                    204: gone,
                    307: redirect,
                },
                kinds=refused,
                **common,
            ),
        },
    }


# operating


def _operating_paths() -> Part:
    common: dict[str, Any] = {"tag": "operating", "stages": _REGISTRY, "handshakes": _REGISTRY}
    health = {
        "anyOf": [ref("schemas", messages.RegistryHealth.__name__), ref("schemas", messages.SubscriberHealth.__name__)]
    }
    return {
        "/clusters": {
            "get": operation(
                "getClusters",
                "Subscribers by cluster",
                "Every subscriber, its load and its health: `late` 3 s after its last announcement, `silent` after "
                "`silent_s`.",
                answers={200: answer("The clusters.", json_of(messages.ClusterList), ["Cache-Control"])},
                **common,
            )
        },
        "/targets": {
            "get": operation(
                "getTargets",
                "Targets of Prometheus",
                "The live subscribers in the form of Prometheus' HTTP service discovery.",
                answers={
                    200: answer(
                        "The targets.",
                        content(JSON, {"type": "array", "items": ref("schemas", messages.Targets.__name__)}),
                        ["Cache-Control"],
                    )
                },
                **common,
            )
        },
        "/healthz": {
            "get": operation(
                "getHealth",
                "Health",
                "The registry answers with its clients and its live subscribers, a subscriber with its streams.",
                answers={200: answer("Healthy.", content(JSON, health), ["Cache-Control"])},
                **{**common, "stages": BOTH},
            )
        },
        "/metrics": metrics(BOTH, _REGISTRY),
    }


# the page


def _page_paths() -> Part:
    common: dict[str, Any] = {"tag": "page", "stages": _REGISTRY, "handshakes": _REGISTRY}

    def document_of(name: str, summary: str, text: str, kind: type, **fields: Any) -> Part:
        return {
            "get": operation(
                name,
                summary,
                text,
                answers={200: answer(f"{summary}.", json_of(kind), ["Cache-Control", *_PAGE_HEADERS])},
                **common,
                **fields,
            )
        }

    conditions = _parameters_of("If-None-Match", "If-Match", "If-Modified-Since", "Range")

    def file(name: str, summary: str, text: str, media_types: Sequence[str], **fields: Any) -> Part:
        body = {media_type: {"schema": {"type": "string"}} for media_type in media_types}
        parameters = fields.pop("parameters", [])
        return {
            "get": operation(
                name,
                summary,
                text,
                parameters=[*parameters, *conditions],
                answers={
                    200: answer("The file.", body, _FILE_HEADERS),
                    206: answer("The part of the file that `Range` names.", body, ["Content-Range", *_FILE_HEADERS]),
                    304: answer("The browser's copy is current.", headers=_COPY_HEADERS),
                    412: answer("The file has not the `ETag` in `If-Match`.", _problem(), _PAGE_HEADERS),
                    416: answer("The file has no such part.", _problem(), ["Content-Range", *_PAGE_HEADERS]),
                    **({404: answer("There is no such file.", _problem(), _PAGE_HEADERS)} if parameters else {}),
                },
                **{**common, **fields},
            )
        }

    filename = {
        "name": "filename",
        "in": "path",
        "required": True,
        "description": "A file of the page.",
        "schema": {"type": "string"},
        "example": "main.js",
    }
    return {
        "/": file("getPage", "The page", "The page for viewers.", ["text/html"]),
        "/ops": file("getOps", "The operators' page", "Shows what `/ops/data` answers.", ["text/html"]),
        "/ops/data": document_of(
            "getOpsData",
            "The state of the chain",
            "Rates, consumer lag, micro-batches, the last windows, subscribers, and what is wrong.",
            messages.OpsData,
        ),
        "/watching": document_of(
            "getWatching", "The number of viewers", "How many watch, and when to ask again.", messages.Watching
        ),
        "/page/settings.json": document_of(
            "getPageSettings",
            "The page's settings",
            "The address of ingest, the trigger, the group size, the id to replay from, the time.",
            messages.PageSettings,
            any_origin=True,
        ),
        "/page/emoji.json": {
            "get": operation(
                "getEmoji",
                "The emoji",
                "Every emoji that ingest counts, with names, by group.",
                parameters=_parameters_of("If-None-Match", "If-Match"),
                answers={
                    200: answer(
                        "The emoji.",
                        content(JSON, {"type": "array", "items": ref("schemas", messages.Choice.__name__)}),
                        _CACHE_HEADERS,
                    ),
                    304: answer("The browser's copy is current.", headers=_CACHE_HEADERS),
                    412: answer("The list has not the `ETag` in `If-Match`.", _problem(), _PAGE_HEADERS),
                },
                any_origin=True,
                **common,
            )
        },
        "/page/{filename}": file(
            "getPageFile",
            "The page's files",
            "Scripts, styles and pictures. They are open to the pages of every origin, so that the page can say why "
            "it is refused.",
            ["text/javascript", "text/css", "image/svg+xml", "text/html"],
            parameters=[filename],
            any_origin=True,
        ),
    }
