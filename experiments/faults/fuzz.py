"""Fuzzed requests from the OpenAPI documents against running services: no answer may be a fault of the service."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count as count_from
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok

from pipeline.problems import CONTENT_TYPE

ANSWER_S = 10.0
READ_BYTES = 65_536
STATED = 503
"""What a service may answer beside 4xx, with a problem document that says why and what to do."""
SHOWN = 20


@dataclass
class Fuzzed:
    """What was sent: the requests, the answers by status, and what was wrong with some."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unexpected_5xx: int = 0
    wrong: list[str] = field(default_factory=list)

    def take(self, case: Any, answer: Any) -> None:
        """Judge an answer: below 500 or a stated 503, and a problem document if it is an error."""
        self.requests += 1
        self.statuses[answer.status_code] += 1
        if answer.status_code < 400 or case.method.upper() == "HEAD":
            return
        # Of a stream that would go on and on, nothing is read.
        body = answer.raw.read(READ_BYTES, decode_content=True)
        problem = _is_problem(answer, body)
        if answer.status_code >= 500 and not (answer.status_code == STATED and problem):
            self.unexpected_5xx += 1
            self._say(case, answer, body, "is a fault of the service")
        elif not problem:
            self._say(case, answer, body, "is an error without a problem document")

    def silent(self, case: Any, error: Exception) -> None:
        """Note a request that got no answer."""
        self.requests += 1
        self.wrong.append(f"{case.method} {case.path}: no answer: {error}"[:500])

    def _say(self, case: Any, answer: Any, body: bytes, what: str) -> None:
        if len(self.wrong) < SHOWN:
            self.wrong.append(f"{case.as_curl_command()}\n    {answer.status_code} {what}: {body[:200]!r}")


def _is_problem(answer: Any, body: bytes) -> bool:
    if answer.headers.get("Content-Type") != CONTENT_TYPE:
        return False
    document = json.loads(body)
    return document.get("status") == answer.status_code and bool(document.get("title")) and bool(document.get("detail"))


def fuzz(url: str, count: int, seed_of: int, fuzzed: Fuzzed) -> None:
    """Send at least `count` requests: such as the document at `url` allows, and such as it does not."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    kinds = [operation.as_strategy(generation_mode=mode) for operation in operations for mode in modes]
    due = fuzzed.requests + count
    with requests.Session() as http:
        for turn in count_from(0):
            # Some are few: a route without parameters has no request that its document does not allow.
            share = max(1, (due - fuzzed.requests) // len(kinds))
            before = fuzzed.requests
            for cases in kinds:
                with suppress(Unsatisfiable):
                    _fuzz_one(cases, url, http, share, 1_000 * seed_of + turn, fuzzed)
            if fuzzed.requests >= due or fuzzed.requests == before:
                return


def _fuzz_one(cases: Any, url: str, http: requests.Session, count: int, seed_of: int, fuzzed: Fuzzed) -> None:
    @seed(seed_of)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def send(case: Any) -> None:
        try:
            request = case.as_transport_kwargs(base_url=url)
            with http.request(**request, timeout=ANSWER_S, stream=True, allow_redirects=False) as answer:
                fuzzed.take(case, answer)
        except requests.RequestException as error:
            fuzzed.silent(case, error)

    send()
