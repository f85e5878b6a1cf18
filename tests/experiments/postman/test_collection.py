"""The collection's files against the OpenAPI documents, which other tests hold to the routes of the applications."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from experiments.postman import collection as files
from experiments.postman.requests import INGEST, REGISTRY, SUBSCRIBER, operations

COLLECTION = json.loads(files.COLLECTION.read_bytes())
ENVIRONMENT = json.loads(files.ENVIRONMENT.read_bytes())
STATUS = re.compile(r"pm\.response\.to\.have\.status\((\d+)\)")
KIND = re.compile(r"problem\.type\)\.to\.match\(/#([\w-]+)\$/\)")
REDIRECTED = {200, 400, 409, 426}
"""Statuses of a stream that the registry does not give itself: it redirects, and the subscriber answers."""

OUTAGE = "needs a Kafka that is out of reach, or a setting that no request changes"
ENDLESS = "does not end by itself, and newman waits for the end; tests/integration reads it"
NO_SUBSCRIBER = "needs a chain without a live subscriber"
OTHER_HOST = "needs another Host than that of the request's address"
NOT_PROVOKED: dict[tuple[str, str, str, int], str] = {
    (INGEST, "POST", "/reactions", 408): "needs ten seconds",
    (INGEST, "POST", "/reactions", 503): OUTAGE,
    (INGEST, "GET", "/healthz", 503): OUTAGE,
    **{(stage, method, path, 421): OTHER_HOST for stage, method, path, _ in operations()},
    (REGISTRY, "POST", "/clients", 408): "needs ten seconds",
    (REGISTRY, "POST", "/clients", 429): "needs 10,000 registrations in a minute",
    (REGISTRY, "DELETE", "/clients/{client_id}", 503): OUTAGE,
    (REGISTRY, "POST", "/clients/{client_id}/tickets", 503): NO_SUBSCRIBER,
    (SUBSCRIBER, "GET", "/clients/{client_id}/stream", 200): ENDLESS,
    (SUBSCRIBER, "GET", "/clients/{client_id}/socket", 101): ENDLESS,
    **{
        (stage, "GET", f"/clients/{{client_id}}/{path}", status): reason
        for path in ("stream", "socket", "windows")
        for stage, status, reason in (
            (REGISTRY, 200, NO_SUBSCRIBER),
            (REGISTRY, 503, NO_SUBSCRIBER),
            (SUBSCRIBER, 503, "needs `connections_max` streams"),
        )
    },
}
"""What no request of a collection provokes on a healthy chain, with the reason."""
KINDS_NOT_PROVOKED = {
    "kafka-is-out-of-reach": OUTAGE,
    "kafka-did-not-acknowledge": OUTAGE,
    "kafka-refuses-reactions": "needs a topic that is gone, or a right that was withdrawn",
    "buffer-full": OUTAGE,
    "body-too-slow": "needs ten seconds",
    "host-not-allowed": OTHER_HOST,
    "too-many-unfinished-requests": "needs a thousand connections",
    "disk-nearly-full": "needs a disk without room",
    "too-many-registrations": "needs 10,000 registrations in a minute",
    "too-many-clients": "needs `clients_max` registrations",
    "too-many-streams": "needs `connections_max` streams",
    "ticket-expired": "needs ten seconds",
    "another-subscribers-ticket": "needs a second subscriber",
}


class Sent(NamedTuple):
    """One request of the collection's file: who gets it, and what it expects."""

    folder: str
    name: str
    stage: str
    method: str
    path: str
    status: int
    kind: str
    script: str

    @property
    def route(self) -> tuple[str, str, str]:
        """The stage, method and path."""
        return self.stage, self.method, self.path


def read(folder: str, item: dict[str, Any]) -> Sent:
    """Read one item of the file."""
    request, url = item["request"], item["request"]["url"]
    script = "\n".join(line for event in item["event"] if event["listen"] == "test" for line in event["script"]["exec"])
    status = int(STATUS.findall(script)[0])
    (host,) = url["host"]
    stage = host.strip("{}")
    path = re.sub(r":(\w+)", r"{\1}", "/" + "/".join(url["path"]))
    follows = item["protocolProfileBehavior"].get("followRedirects", True)
    if stage == REGISTRY and follows and status in REDIRECTED and path.endswith(("/stream", "/socket", "/windows")):
        handshake = any(header["key"] == "Upgrade" for header in request["header"])
        stage = REGISTRY if handshake else SUBSCRIBER
    kind = KIND.search(script)
    return Sent(folder, item["name"], stage, request["method"], path, status, kind[1] if kind else "", script)


REQUESTS = [read(folder["name"], item) for folder in COLLECTION["item"] for item in folder["item"]]


def documented() -> Iterator[tuple[str, str, str, int]]:
    """Yield each documented answer: stage, method, path, status."""
    for stage, method, path, operation in operations():
        for status, answer in operation["responses"].items():
            if stage in answer.get("x-stages", (stage,)):
                yield stage, method, path, int(status)


def documented_kinds() -> set[str]:
    """Every kind of problem of both documents."""
    return {
        slug
        for _, _, _, operation in operations()
        for answer in operation["responses"].values()
        for slug in answer.get("content", {}).get("application/problem+json", {}).get("examples", {})
    }


def test_files_are_those_that_the_code_makes() -> None:
    """After a change of the requests or of a route: `python -m experiments.postman.collection`."""
    assert files.COLLECTION.read_text(encoding="utf-8") == files.text(files.collection())
    assert files.ENVIRONMENT.read_text(encoding="utf-8") == files.text(files.environment())


def test_every_documented_answer_has_a_request() -> None:
    """By stage, method, path and status; what cannot be provoked is listed above with its reason."""
    sent = {(*each.route, each.status) for each in REQUESTS}
    assert set(documented()) - sent == set(NOT_PROVOKED)


def test_every_request_is_documented() -> None:
    """An unknown path, a method that a path does not take, HEAD and OPTIONS are documented once for all paths."""
    answers = set(documented())
    routes = {answer[:3] for answer in answers}
    for each in REQUESTS:
        if each.method == "OPTIONS":
            assert each.status == 204, each.name
        elif each.method == "HEAD":
            assert (each.stage, "GET", each.path, each.status) in answers, each.name
        elif each.route in routes:
            assert (*each.route, each.status) in answers, each.name
        else:
            known = {route[2] for route in routes if route[0] == each.stage}
            assert each.status == (405 if each.path in known else 404), each.name


def test_every_documented_kind_of_problem_is_tested_for() -> None:
    """By the last part of its `type`; what cannot be provoked is listed above with its reason."""
    tested = {each.kind for each in REQUESTS} - {""}
    assert documented_kinds() - tested == set(KINDS_NOT_PROVOKED)
    assert tested <= documented_kinds()


def test_environment_has_the_two_addresses_and_the_collection_none() -> None:
    """An import needs no other edit. The third address, the subscriber's, comes from a ticket."""
    assert [value["key"] for value in ENVIRONMENT["values"]] == ["ingest", "registry"]
    text = files.COLLECTION.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^/\"`?]+", text)) == {
        "https://schema.getpostman.com",
        "https://elsewhere.example",
    }
    assert {each.stage for each in REQUESTS} == {INGEST, REGISTRY, SUBSCRIBER}


def test_every_variable_is_set_by_a_script_or_by_the_environment() -> None:
    """A name in braces that nothing sets would be sent as it stands."""
    text = files.COLLECTION.read_text(encoding="utf-8")
    used = set(re.findall(r"\{\{(\w+)\}\}", text))
    scripts = "\n".join(
        line
        for folder in COLLECTION["item"]
        for item in folder["item"]
        for event in item["event"]
        for line in event["script"]["exec"]
    )
    kept = set(re.findall(r'collectionVariables\.set\("(\w+)"', scripts))
    assert used <= kept | {value["key"] for value in ENVIRONMENT["values"]}
    assert {variable["key"] for variable in COLLECTION["variable"]} == kept


@pytest.mark.parametrize("each", REQUESTS, ids=[f"{each.folder[:2]} {each.name}" for each in REQUESTS])
def test_request_has_tests_of_its_own(each: Sent) -> None:
    """One of its status, and for a refusal one of the problem document."""
    assert len(STATUS.findall(each.script)) == 1
    assert each.status < 400 or "application/problem+json" in each.script
    assert each.script.count("pm.test(") >= (2 if each.status >= 400 else 1)


def test_names_are_unique_in_their_folder() -> None:
    """A request is repeated by its name."""
    assert max(Counter((each.folder, each.name) for each in REQUESTS).values()) == 1
