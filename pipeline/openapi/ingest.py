"""The OpenAPI document of ingest. Pure."""

from __future__ import annotations

import functools

from pipeline.http_messages import Accepted, IngestHealth, SentReaction
from pipeline.openapi import kinds
from pipeline.openapi.parts import (
    DOCS_PATH,
    HEADERS,
    JSON,
    OPENAPI,
    PARAMETERS,
    Part,
    answer,
    every_path,
    header,
    json_of,
    metrics,
    operation,
    own_paths,
    ref,
    schemas,
)
from pipeline.settings import Settings

STAGE = "ingest"
_STAGES = (STAGE,)

_REFUSED = (
    kinds.NOT_JSON,
    kinds.BODY_TOO_SLOW,
    kinds.BODY_TOO_LARGE,
    kinds.ARRAY_TOO_LONG,
    kinds.TOO_MANY_OF_ONE_USER,
    kinds.NOT_APPLICATION_JSON,
    kinds.COMPRESSED_BODY,
    kinds.NOT_A_REACTION,
    kinds.TOO_MANY_REACTIONS,
    kinds.KAFKA_OUT,
    kinds.KAFKA_REFUSES,
    kinds.TOO_MANY_UNFINISHED,
    kinds.BUFFER_FULL,
    kinds.DISK_FULL,
    kinds.NOT_ACKNOWLEDGED,
)
KINDS = (*_REFUSED, kinds.ORIGIN_NOT_ALLOWED, kinds.HOST_NOT_ALLOWED, kinds.NOT_A_WEBSOCKET_ROUTE)
"""Every kind of problem that ingest answers with, beside those of type `about:blank`."""

_REACTION = {"user_id": "ada", "emoji_type": "😂", "timestamp": "2026-11-23T21:00:00Z"}
_FIELDS = {
    "user_id": "Who reacts. A number counts as its digits.",
    "emoji_type": "Exactly one emoji, in any spelling of Unicode's list; `❤` and `❤️` count as the same.",
    "timestamp": "When: a date and a time in ISO 8601, in UTC unless they have a zone; also without `-` and `:`, with "
    "a space for the `T`, and with an offset such as `+01`. Or a number since 1970, of seconds, milliseconds, "
    "microseconds or nanoseconds: its digits give the unit.",
    "reaction_id": "Names this tap, in at most 64 bytes, such as a UUID. Of several reactions with one id within ten "
    "minutes, one counts: one whose answer was lost can be sent again. Without it each counts.",
}


@functools.cache
def document(values: Settings) -> Part:
    """Return the document of an ingest with these settings; the caller does not change it."""
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "EmoStream: ingest",
            "version": "0.1.0",
            "summary": "Takes the reactions of a live audience.",
            "description": "Ingest checks reactions, buffers them, and sends them to Kafka. Errors are problem "
            "documents (RFC 9457). Names such as `array_max` are settings of the chain; the limits here are those of "
            "this ingest.\n\nWindows come from the registry and the subscribers, which have a document of their own: "
            "the registry serves it at `/openapi.json`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {"url": "/", "description": "The ingest that serves this document."},
            {
                "url": f"http://127.0.0.1:{values.ingest_port or 8000}",
                "description": "This ingest, on its own machine.",
            },
        ],
        "tags": [
            {"name": "reactions", "description": "What fans send."},
            {"name": "operating", "description": "Health and metrics."},
            {"name": "documents", "description": "This document."},
        ],
        "paths": {
            "/reactions": {"post": _post_reactions(values)},
            "/healthz": {"get": _healthz()},
            "/metrics": metrics(_STAGES, _STAGES),
            **own_paths(_STAGES, _STAGES),
        },
        "components": {
            "schemas": _schemas(),
            "headers": HEADERS
            | {"Accept-Encoding": header("Which encodings of a body are accepted.", "identity", enum=["identity"])},
            "parameters": PARAMETERS,
        },
        "x-every-path": every_path("Without `Origin` it is 200 with `Allow`."),
        "externalDocs": {"url": DOCS_PATH, "description": "This document as a page."},
    }


def _schemas() -> Part:
    examples = {"SentReaction": _REACTION, "Accepted": {"accepted": 2}}
    made = schemas((Accepted, IngestHealth, SentReaction), examples)
    reaction = made["SentReaction"]
    for name, text in _FIELDS.items():
        reaction["properties"][name]["description"] = text
        reaction["properties"][name]["examples"] = [_REACTION.get(name, "01990b5c-5d1f-7a3e-8c1d-3f5a7b9c2e4d")]
    # Of no standard: a generator of test data may have one for it.
    reaction["properties"]["emoji_type"]["format"] = "emoji"
    return made


def _post_reactions(values: Settings) -> Part:
    waits = (
        " The answer waits until Kafka has acknowledged the reactions (`ack=durable`)."
        if values.ack == "durable"
        else ""
    )
    return operation(
        "postReactions",
        "Send reactions",
        "The body is one reaction or an array of them. It is accepted whole or not at all." + waits,
        tag="reactions",
        stages=_STAGES,
        handshakes=_STAGES,
        parameters=[
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Names this request: each reaction that has no `reaction_id` gets one, made of this key "
                "and its place.",
                "schema": {"type": "string"},
            }
        ],
        requestBody={
            "required": True,
            "description": f"JSON in UTF-8, at most {values.body_max_bytes} bytes (`body_max_bytes`), without "
            "compression.",
            "content": {
                JSON: {
                    "schema": {
                        "oneOf": [
                            ref("schemas", "SentReaction"),
                            {"type": "array", "items": ref("schemas", "SentReaction"), "maxItems": values.array_max},
                        ]
                    },
                    "examples": {
                        "one": {"summary": "One reaction", "value": _REACTION},
                        "several": {
                            "summary": "Several in one request",
                            "value": [
                                {**_REACTION, "emoji_type": "❤"},
                                {"user_id": "alan", "emoji_type": "😂", "timestamp": "2026-11-23T22:00:00+01:00"},
                            ],
                        },
                    },
                }
            },
        },
        answers={202: answer("Everything was accepted.", json_of(Accepted))},
        kinds=_REFUSED,
    )


def _healthz() -> Part:
    return operation(
        "getHealth",
        "Health",
        "The worker that answers: 200 while Kafka acknowledges its reactions, 503 when it has not for `kafka_out_s`.",
        tag="operating",
        stages=_STAGES,
        handshakes=_STAGES,
        answers={
            200: answer("Kafka acknowledges.", json_of(IngestHealth), ["Cache-Control"]),
            503: answer("Kafka is out of reach.", json_of(IngestHealth), ["Cache-Control"]),
        },
    )
