"""Connections that say nothing keep nobody else waiting."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from experiments.run.chain import Endpoints
from pipeline.file_limit import raise_file_limit
from tests.harness.waiting import DEADLINE_S

pytestmark = pytest.mark.integration

# More than the server's default of 1,024, and than the usual limit of open files.
SILENT = 1_300
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
