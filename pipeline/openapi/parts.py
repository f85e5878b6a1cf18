"""The parts that both documents are made of: schemas, headers, answers and operations. Pure.

Each function returns a part of an OpenAPI 3.1 document, as JSON values.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline import origins, problems
from pipeline.http_messages import Problem
from pipeline.openapi.kinds import HOST_NOT_ALLOWED, NOT_A_WEBSOCKET_ROUTE, ORIGIN_NOT_ALLOWED, Kind

Part = dict[str, Any]

OPENAPI = "3.1.1"
OPENAPI_PATH = "/openapi.json"
DOCS_PATH = "/docs"
JSON = "application/json"
HTML = "text/html; charset=utf-8"
STAGES = "x-stages"
"""The field of a path's operation, or of one answer, that lists the stages it is of."""

CORS = ("Vary", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers")
"""The headers of every answer to an allowed page; `Vary` may be on others."""

_SCRAPE = ("text/plain", "application/openmetrics-text")


def ref(kind: str, name: str) -> Part:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def schemas(types: Iterable[type], examples: Mapping[str, object]) -> Part:
    """Return the schemas of msgspec types, and of all that they contain, by name; `examples` has some by name."""
    _, found = msgspec.json.schema_components([*types, Problem], ref_template="#/components/schemas/{name}")
    for name, schema in found.items():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
        if name in examples:
            schema["examples"] = [examples[name]]
    return found


def header(description: str, example: str, **schema: object) -> Part:
    """Return a header of an answer."""
    return {"description": description, "schema": {"type": "string", **schema}, "example": example}


HEADERS: dict[str, Part] = {
    "Vary": header("`Origin`: a cache must keep the answers to several pages apart.", "Origin"),
    "Access-Control-Allow-Origin": header(
        "The request's `Origin`, if it is allowed; otherwise absent.", "http://localhost:3000"
    ),
    "Access-Control-Allow-Credentials": header("With the header before.", "true", enum=["true"]),
    "Access-Control-Expose-Headers": header(
        "With the header before: which headers the page may read.", origins.EXPOSED, enum=[origins.EXPOSED]
    ),
    "Cache-Control": header("Whether a cache may keep the answer.", "no-store"),
    "Content-Security-Policy": header("What the page may load.", "default-src 'none'"),
    "Retry-After": header("Seconds to wait before the next request.", "2", pattern="^[0-9]+$"),
}
"""The headers of answers that both documents have."""

PARAMETERS: dict[str, Part] = {
    "Origin": {
        "name": "Origin",
        "in": "header",
        "description": "Browsers name the page that sends the request. An allowed page gets CORS headers, any other "
        "one 403.",
        "schema": {"type": "string"},
    },
}
"""The parameters that both documents have."""


def content(media_type: str, schema: Part) -> Part:
    """Return the content of a body in one media type."""
    return {media_type: {"schema": schema}}


def json_of(kind: type) -> Part:
    """Return the content of a JSON body of a msgspec type that `schemas` was given."""
    return content(JSON, ref("schemas", kind.__name__))


def answer(
    description: str,
    body: Part | None = None,
    headers: Sequence[str] = (),
    stages: Sequence[str] = (),
    cors: Sequence[str] = CORS,
) -> Part:
    """Return an answer; `headers` and `cors` are names of components, `stages` those that give it, if not all."""
    made: Part = {"description": description, "headers": {name: ref("headers", name) for name in (*headers, *cors)}}
    if body is not None:
        made["content"] = body
    if stages:
        made[STAGES] = list(stages)
    return made


def refusals(kinds: Iterable[tuple[Kind, str]], everyone: Sequence[str]) -> dict[str, Part]:
    """Return the answers by status that have one of these kinds of problem, each given with a stage that has it.

    `everyone` are the stages of the operation: what all have needs no mention.
    """
    by_status: dict[int, dict[Kind, list[str]]] = {}
    for kind, stage in kinds:
        by_status.setdefault(kind.status, {}).setdefault(kind, []).append(stage)
    return {str(status): _refusal(status, found, everyone) for status, found in sorted(by_status.items())}


def _refusal(status: int, found: Mapping[Kind, Sequence[str]], everyone: Sequence[str]) -> Part:
    names = dict.fromkeys(name for kind in found for name in kind.headers)
    schema: Part = {
        "allOf": [ref("schemas", Problem.__name__)],
        "properties": {
            "type": {"enum": [kind.type for kind in found]},
            "title": {"enum": [kind.title for kind in found]},
            "status": {"const": status},
        },
    }
    examples = {}
    for kind, stages in found.items():
        document = {"type": kind.type, "title": kind.title, "status": status, "detail": kind.text}
        examples[kind.slug] = {"summary": kind.title, "value": document} | _stages(stages, everyone)
    description = "; ".join(kind.title for kind in found) + "."
    content = {problems.CONTENT_TYPE: {"schema": schema, "examples": examples}}
    # A page that is not allowed gets no headers that let it read the answer.
    cors = CORS[:1] if set(found) <= {ORIGIN_NOT_ALLOWED, HOST_NOT_ALLOWED} else CORS
    made = answer(description, content, list(names), cors=cors)
    return made | _stages(sorted({stage for stages in found.values() for stage in stages}), everyone)


def _stages(stages: Sequence[str], everyone: Sequence[str]) -> Part:
    """Return the field that lists `stages`, if that is not `everyone` of the operation."""
    return {} if len(stages) == len(everyone) else {STAGES: list(stages)}


def operation(
    name: str,
    summary: str,
    description: str,
    *,
    tag: str,
    stages: Sequence[str],
    answers: Mapping[int, Part],
    kinds: Iterable[Kind | tuple[Kind, str]] = (),
    handshakes: Sequence[str] = (),
    any_origin: bool = False,
    **fields: object,
) -> Part:
    """Return an operation.

    `kinds` are its problems beside those of every route; one that only one stage has is given with that stage.
    `handshakes` are the stages that refuse a WebSocket's handshake here. `any_origin` is whether every page may
    send it. `fields` are further fields of the operation.
    """
    pairs = [
        pair
        for kind in kinds
        for pair in ([kind] if not isinstance(kind, Kind) else [(kind, stage) for stage in stages])
    ]
    pairs += [(NOT_A_WEBSOCKET_ROUTE, stage) for stage in handshakes]
    pairs += [(HOST_NOT_ALLOWED, stage) for stage in stages]
    if not any_origin:
        pairs += [(ORIGIN_NOT_ALLOWED, stage) for stage in stages]
    given: list[Part] = list(fields.pop("parameters", []))  # type: ignore[call-overload]
    made: Part = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "parameters": [*given, ref("parameters", "Origin")],
        **fields,
        "responses": {str(status): part for status, part in answers.items()} | refusals(pairs, stages),
    }
    if stages:
        made[STAGES] = list(stages)
    return made


def own_paths(stages: Sequence[str], handshakes: Sequence[str]) -> Part:
    """Return the paths of the document itself: as JSON, and as a page."""
    common: dict[str, Any] = {"tag": "documents", "stages": stages, "handshakes": handshakes}
    return {
        OPENAPI_PATH: {
            "get": operation(
                "getOpenapi",
                "This document",
                "The OpenAPI document as JSON.",
                answers={200: answer("The document.", content(JSON, {"type": "object"}), ["Cache-Control"])},
                **common,
            )
        },
        DOCS_PATH: {
            "get": operation(
                "getDocs",
                "This document as a page",
                "The page needs no script, and no other file. Each kind of problem has an address here, which is its "
                "`type`.",
                answers={
                    200: answer(
                        "The page.",
                        content("text/html", {"type": "string"}),
                        ["Cache-Control", "Content-Security-Policy"],
                    )
                },
                **common,
            )
        },
    }


def metrics(stages: Sequence[str], handshakes: Sequence[str]) -> Part:
    """Return the path of the metrics."""
    return {
        "get": operation(
            "getMetrics",
            "Metrics",
            "The metrics in Prometheus' text format, or as OpenMetrics if `Accept` names it.",
            tag="operating",
            stages=stages,
            handshakes=handshakes,
            answers={
                200: answer(
                    "The metrics.", {kind: {"schema": {"type": "string"}} for kind in _SCRAPE}, ["Cache-Control"]
                ),
            },
        )
    }


def every_path(options: str) -> Part:
    """Return what every path answers beside its operations; `options` says what OPTIONS gets without `Origin`."""
    preflight = ", ".join(f"`{name}: {value}`" for name, value in origins.PREFLIGHT.items())
    return {
        "description": "What every path answers, beside what is listed for it.",
        "HEAD": "As GET, without a body, where GET is listed; a subscriber's streams take no HEAD (405).",
        "OPTIONS": f"With the `Origin` of an allowed page it is a preflight: 204 with {preflight}; with that of "
        f"another page 403. {options}",
        "404": "An unknown path: a problem of type `about:blank`, whose detail names the nearest route.",
        "405": "A method that the path does not take: a problem of type `about:blank`, with `Allow`, whose detail "
        "names the nearest route.",
    }
