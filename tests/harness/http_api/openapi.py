"""Holds answers of a stage to its OpenAPI document, and the document to the answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from pipeline.http_messages import Problem
from pipeline.openapi.page import resolved
from pipeline.openapi.parts import STAGES
from pipeline.problems import BLANK, CONTENT_TYPE

JSON = "application/json"
# The server's own, of every answer.
_OF_THE_SERVER = {"content-type", "content-length", "date", "server", "connection", "transfer-encoding"}
# What OpenAPI has no parameters for (specification 3.1, section 4.8.12.1).
_OF_EVERY_REQUEST = {"accept", "authorization", "content-type", "cookie", "host"}


class Answer(NamedTuple):
    """What a stage answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0]


class Request(NamedTuple):
    """A request of a documented operation: `path` is its template, filled with `parameters`."""

    method: str
    path: str
    parameters: Mapping[str, str] = {}
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes | None = None

    @property
    def url(self) -> str:
        """The path and the query to request."""
        path = self.path.format(**self.parameters)
        return f"{path}?{self.query}" if self.query else path

    def having(self, headers: Mapping[str, str]) -> Request:
        """Return the request with further headers."""
        return self._replace(headers={**self.headers, **headers})


class Contract:
    """One document, and what a stage has answered so far."""

    def __init__(self, document: dict[str, Any], stage: str) -> None:
        self.document = document
        self.stage = stage
        self.answered: set[tuple[str, str, str, str]] = set()
        self.headers: set[tuple[str, str, str, str]] = set()
        # A field that is not in the document is an error.
        self._components = copy.deepcopy(document["components"])
        for schema in self._components["schemas"].values():
            if "properties" in schema:
                schema["additionalProperties"] = False

    def take(self, request: Request, answer: Answer) -> None:
        """Check one answer, and remember it."""
        where = f"{request.method} {request.url} at {self.stage}: {answer.status} {answer.body[:300]!r}"
        item = self.document["paths"][request.path]
        operation = item[request.method.lower()]
        if answer.status < 400:
            self._check_request(request, item, operation)
        status = str(answer.status)
        assert status in operation["responses"], f"{where}: the status is not documented"
        documented = operation["responses"][status]
        assert self.stage in documented.get(STAGES, operation[STAGES]), f"{where}: not documented of this stage"
        names = {name.lower() for name in documented["headers"]}
        extra = {name.lower() for name in answer.headers} - _OF_THE_SERVER - names
        assert not extra, f"{where}: headers {extra} are not documented"
        content = documented.get("content")
        if content is None:
            assert answer.body == b"", where
        else:
            assert answer.media_type in content, f"{where}: {answer.media_type} is not documented"
        kind = ""
        if content is not None and answer.media_type in (JSON, CONTENT_TYPE):
            document = json.loads(answer.body)
            self.check(content[answer.media_type]["schema"], document, where)
            if answer.media_type == CONTENT_TYPE and document["type"] != BLANK:
                kind = document["type"].partition("#")[2]
                example = content[CONTENT_TYPE]["examples"][kind]
                assert self.stage in example.get(STAGES, operation[STAGES]), f"{where}: not of this stage"
        self.answered.add((request.method, request.path, status, kind))
        for name in answer.headers:
            self.headers.add((request.method, request.path, status, name.lower()))

    def check(self, schema: dict[str, Any], instance: object, where: str) -> None:
        """Check a JSON value against a schema of the document."""
        errors = list(Draft202012Validator({**schema, "components": self._components}).iter_errors(instance))
        assert not errors, f"{where}: {errors[0].message} at {list(errors[0].absolute_path)}"

    def unanswered(self) -> list[tuple[str, str, str, str]]:
        """Return what the document lists and the stage has not answered: method, path, status and kind of problem."""
        return sorted(set(self._documented()) - self.answered)

    def routes(self) -> dict[str, set[str]]:
        """Return the methods of each path that the document lists of the stage."""
        found: dict[str, set[str]] = {}
        for method, path, *_ in self._answers():
            found.setdefault(path, set()).add(method)
        return found

    def check_refused(self, answer: Answer, status: int) -> dict[str, Any]:
        """Check that an answer is a problem of type `about:blank`, which every path may have; return it."""
        assert (answer.status, answer.media_type) == (status, CONTENT_TYPE)
        document = json.loads(answer.body)
        self.check(self.document["components"]["schemas"][Problem.__name__], document, str(status))
        assert (document["type"], document["status"]) == (BLANK, status)
        return dict(document)

    def absent_headers(self) -> list[tuple[str, str, str, str]]:
        """Return the headers that the document lists and no answer had: method, path, status and name."""
        documented = {
            (method, path, status, name.lower())
            for method, path, status, answer, _ in self._answers()
            for name in answer["headers"]
        }
        return sorted(documented - self.headers)

    def _documented(self) -> Iterable[tuple[str, str, str, str]]:
        for method, path, status, answer, stages in self._answers():
            examples = answer.get("content", {}).get(CONTENT_TYPE, {}).get("examples", {})
            for kind, example in examples.items():
                if self.stage in example.get(STAGES, stages):
                    yield method, path, status, kind
            if not examples:
                yield method, path, status, ""

    def _answers(self) -> Iterable[tuple[str, str, str, dict[str, Any], list[str]]]:
        for path, item in self.document["paths"].items():
            for method in ("get", "post", "delete"):
                if method in item and self.stage in item[method][STAGES]:
                    for status, answer in item[method]["responses"].items():
                        stages = answer.get(STAGES, item[method][STAGES])
                        if self.stage in stages:
                            yield method.upper(), path, status, answer, stages

    def _check_request(self, request: Request, item: dict[str, Any], operation: dict[str, Any]) -> None:
        parameters = [resolved(self.document, each) for each in (*item.get("parameters", ()), *operation["parameters"])]
        names = {each["name"].lower() for each in parameters if each["in"] == "header"}
        assert {name.lower() for name in request.headers} - _OF_EVERY_REQUEST <= names, request
        if request.body:
            schema = operation["requestBody"]["content"][JSON]["schema"]
            self.check(schema, json.loads(request.body), f"{request.method} {request.path}")
