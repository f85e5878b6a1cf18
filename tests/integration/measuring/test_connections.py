"""Connections that say nothing, and bodies that do not end, keep nobody else waiting."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from experiments.run.chain import Endpoints
from pipeline.file_limit import raise_file_limit
from pipeline.messages import encode
from tests.harness.builders import reaction
from tests.harness.waiting import DEADLINE_S

pytestmark = pytest.mark.integration

# More than the server's default of 1,024, and than the usual limit of open files.
SILENT = 1_300
# More than ingest has threads, with each value of `ack`.
SLOW = 200
# Sooner than a silent connection is closed, which is after 30 s.
ANSWER_S = 10.0


@pytest.mark.parametrize("stage", ["ingest", "registry"])
def test_silent_connections_keep_nobody_waiting(chain_up: Endpoints, stage: str) -> None:
    """With 1,300 of them open, a request is answered as before."""
    assert raise_file_limit() > SILENT + 200
    url = getattr(chain_up, stage)
    address = urlsplit(url).hostname, urlsplit(url).port
    with ExitStack() as stack:
        for _ in range(SILENT):
            stack.enter_context(socket.create_connection(address, DEADLINE_S))
        with urlopen(f"{url}/healthz", timeout=ANSWER_S) as answer:
            assert answer.status == 200


def test_bodies_that_do_not_end_keep_nobody_waiting(chain_up: Endpoints) -> None:
    """With 200 of them under way, reactions of programs and of pages, and health, are answered; the 200 get 408."""
    address = urlsplit(chain_up.ingest).hostname, urlsplit(chain_up.ingest).port
    head = b"POST /reactions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address, DEADLINE_S)) for _ in range(SLOW)]
        for each in slow:
            each.sendall(head)
        for origin in ({}, {"Origin": chain_up.registry}):
            request = Request(
                f"{chain_up.ingest}/reactions", encode(reaction("ada")), {"Content-Type": "application/json", **origin}
            )
            with urlopen(request, timeout=ANSWER_S) as answer:
                assert answer.status == 202
        with urlopen(f"{chain_up.ingest}/healthz", timeout=ANSWER_S) as answer:
            assert answer.status == 200
        for each in slow:
            each.settimeout(DEADLINE_S)
            assert each.recv(12) == b"HTTP/1.1 408"
