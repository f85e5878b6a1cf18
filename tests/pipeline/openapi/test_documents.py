"""The OpenAPI documents: valid, and of the same routes as the applications that serve them."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import flask
import openapi_spec_validator
import pytest

from pipeline import tickets
from pipeline.bus.memory import MemoryBus
from pipeline.ingest.app import create_app as create_ingest
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.ingest.reactions import Reactions
from pipeline.openapi import delivery, ingest
from pipeline.openapi.page import METHODS, resolved
from pipeline.openapi.parts import STAGES
from pipeline.origins import Origins
from pipeline.registry.app import create_app as create_registry
from pipeline.registry.registrations import Registrations
from pipeline.registry.web.observer import Observer
from pipeline.registry.web.views import create_pages
from pipeline.settings import Settings
from pipeline.subscriber.app import create_app as create_subscriber
from pipeline.subscriber.state import Subscriber
from tests.harness.http_api.openapi import Contract
from tests.harness.paths import REPOSITORY
from tests.harness.stages.doubles import MemorySink

DOCUMENTS = {"ingest": ingest.document(Settings()), "delivery": delivery.document()}
Route = tuple[str, str]

_WORDS = re.compile(r"<any\(([^)]*)\):\w+>")
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


def documented(name: str, stage: str) -> set[Route]:
    """Every method and path of a stage in a document."""
    return {
        (method.upper(), path)
        for path, item in DOCUMENTS[name]["paths"].items()
        for method in METHODS
        if method in item and stage in item[method][STAGES]
    }


def flask_routes(app: flask.Flask) -> Iterator[Route]:
    """Every method and path of a Flask application, beside HEAD and OPTIONS."""
    for rule in app.url_map.iter_rules():
        words = _WORDS.search(rule.rule)
        for word in words[1].split(",") if words else ("",):
            path = _PARAMETER.sub(r"{\1}", _WORDS.sub(word, rule.rule))
            for method in (rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}:
                yield method, path


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_is_valid_openapi(name: str) -> None:
    """By the schema of OpenAPI 3.1, with every reference resolved."""
    document = json.loads(json.dumps(DOCUMENTS[name]))
    assert document["openapi"].startswith("3.1")
    openapi_spec_validator.validate(document)


def references(part: object) -> Iterator[str]:
    """Every reference below a part of a document."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from references(each)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_leads_to_a_component_and_every_component_is_used(name: str) -> None:
    """The validator does not follow all of them, and tools stumble over one that leads nowhere."""
    document = DOCUMENTS[name]
    components = {
        f"#/components/{kind}/{each}"
        for kind, parts in document["components"].items()
        for each in parts
        if kind != "securitySchemes"
    }
    assert set(references(document)) == components


@pytest.mark.parametrize("name", DOCUMENTS)
def test_examples_are_as_their_schemas_say(name: str) -> None:
    """Tools send and show them."""
    contract = Contract(DOCUMENTS[name], name)
    for schema in DOCUMENTS[name]["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            contract.check(schema, example, schema["title"])
    for operation in operations(name):
        parameters = [resolved(DOCUMENTS[name], each) for each in operation["parameters"]]
        for parameter in parameters:
            if parameter["in"] == "header" and "example" in parameter:
                parameter["example"].encode("latin-1")
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (each.get("content", {}) for each in contents):
            for media in content.values():
                for example in media.get("examples", {}).values():
                    contract.check(media["schema"], example["value"], operation["operationId"])


def test_ingest_serves_the_documented_routes() -> None:
    """Each route of the application is in the document, and each path of the document is a route."""
    values = Settings()
    buffer = Buffer(values.buffer_max, wake_at=1)
    flusher = Flusher(buffer, MemorySink, flush_ms=500, lead_ms=50, aligned=True)
    assert set(flask_routes(create_ingest(Reactions(values, buffer, flusher)))) == documented("ingest", "ingest")


def test_registry_serves_the_documented_routes() -> None:
    """The page's routes too."""
    values, bus = Settings(), MemoryBus()
    registrations = Registrations(bus, values, pytest.fail)
    observer = Observer(bus, values, pytest.fail, sample_s=0.01)
    try:
        app = create_registry(registrations, "http://registry", Origins("", "", 8080))
        app.register_blueprint(create_pages(registrations, observer, values))
        assert set(flask_routes(app)) == documented("delivery", "registry")
    finally:
        observer.close()
        registrations.close()


def test_subscriber_serves_the_documented_routes() -> None:
    """Its streams, its health, its metrics and the document."""

    async def routes() -> set[Route]:
        subscriber = Subscriber(Settings(), "http://subscriber", from_offset=0)
        app = create_subscriber(
            subscriber.fanout,
            subscriber.tokens,
            subscriber.gate,
            subscriber.health,
            origins=Origins("", "", 8080),
            connections_max=1,
            heartbeat_s=15,
        )
        subscriber.meters.attach(app, 1)
        resources = app.router.resources()
        return {(route.method, resource.canonical) for resource in resources for route in resource} - {
            ("HEAD", resource.canonical) for resource in resources
        }

    assert asyncio.run(routes()) == documented("delivery", "subscriber")


def operations(name: str) -> Iterator[dict[str, Any]]:
    """Every operation of a document."""
    for item in DOCUMENTS[name]["paths"].values():
        yield from (item[method] for method in METHODS if method in item)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_operations_have_names_of_their_own(name: str) -> None:
    """Generators of clients take them as names of functions."""
    names = [each["operationId"] for each in operations(name)]
    assert len(set(names)) == len(names)


def refusals() -> Iterator[tuple[int, str]]:
    """The status and the title of every refusal that a module of the chain can raise."""
    yield from tickets._ANSWERS.values()
    for path in (REPOSITORY / "pipeline").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Refusal":
                status, title, *_ = call.args
                typed = any(each.arg == "problem_type" for each in call.keywords)
                if isinstance(status, ast.Constant) and not typed:
                    assert isinstance(title, ast.Constant), f"{path}:{call.lineno}: the title is the same everywhere"
                    yield status.value, title.value


def test_every_refusal_in_the_code_is_documented_and_every_documented_one_is_in_the_code() -> None:
    """A refusal that no test raises counts too; one below 400 has no document."""
    documented = {
        (int(status), example["summary"])
        for name in DOCUMENTS
        for operation in operations(name)
        for status, answer in operation["responses"].items()
        for example in answer.get("content", {}).get("application/problem+json", {}).get("examples", {}).values()
    }
    assert {(status, title) for status, title in refusals() if status >= 400} == documented


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_has_the_version_of_the_project(name: str) -> None:
    """Generated clients carry it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert DOCUMENTS[name]["info"]["version"] == project["version"]


def test_close_codes_are_those_of_the_guide() -> None:
    """The table of close codes in docs/http-api.md has the same ones."""
    guide = (REPOSITORY / "docs" / "http-api.md").read_text(encoding="utf-8")
    table = guide[guide.index("| close code |") : guide.index("### Long polling")]
    rows = re.findall(r"^\| (\d{4}(?:, \d{4})*) \|", table, re.MULTILINE)
    socket = DOCUMENTS["delivery"]["paths"]["/clients/{client_id}/socket"]["get"]["x-websocket"]
    assert sorted(code for row in rows for code in row.split(", ")) == sorted(socket["closeCodes"])
