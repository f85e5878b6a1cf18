"""The tables of `docs/http-api.md`, made from the OpenAPI documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pipeline.openapi import delivery, ingest
from pipeline.openapi.page import METHODS
from pipeline.openapi.parts import STAGES
from pipeline.problems import CONTENT_TYPE
from pipeline.settings import Settings


class Row(NamedTuple):
    """One answer of an operation, or one kind of problem of it."""

    status: str
    title: str
    text: str
    headers: list[str]


def routes() -> list[str]:
    """Return the lines of the table of all routes, with the statuses of each."""
    lines = ["| at | route | answers |", "| --- | --- | --- |"]
    for stage in (ingest.STAGE, *delivery.BOTH):
        for path, method, operation in _operations():
            if stage in operation[STAGES]:
                statuses = sorted({row.status for row in _rows(operation, stage)})
                lines.append(f"| {stage} | `{method.upper()} {path}` | {', '.join(statuses)} |")
    return lines


def answers(route: str) -> list[str]:
    """Return the lines of the table of a route's answers; `route` is a method, a path and a stage.

    Raises ValueError for a route that no document has.
    """
    try:
        method, path, stage = route.split()
        (operation,) = (
            operation
            for known, named, operation in _operations()
            if (named, known) == (method.lower(), path) and stage in operation[STAGES]
        )
    except ValueError:
        raise ValueError(f"{route!r} is not a documented route: give a method, a path and a stage") from None
    lines = ["| answer | problem | when, and what to do |", "| --- | --- | --- |"]
    for row in _rows(operation, stage):
        status = " + ".join([row.status, *(f"`{name}`" for name in row.headers if name == "Retry-After")])
        lines.append(f"| {status} | {row.title} | {row.text} |")
    return lines


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for document in (ingest.document(Settings()), delivery.document()):
        for path, item in document["paths"].items():
            for method in METHODS:
                if method in item:
                    yield path, method, item[method]


def _rows(operation: dict[str, Any], stage: str) -> Iterator[Row]:
    for status, answer in operation["responses"].items():
        if stage not in answer.get(STAGES, operation[STAGES]):
            continue
        headers = list(answer["headers"])
        examples = answer.get("content", {}).get(CONTENT_TYPE, {}).get("examples", {})
        if not examples:
            yield Row(status, "", answer["description"], headers)
        for example in examples.values():
            if stage in example.get(STAGES, operation[STAGES]):
                yield Row(status, example["summary"], example["value"]["detail"], headers)
