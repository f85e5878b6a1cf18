"""The server of metrics and health, for stages without a server of their own."""

from __future__ import annotations

import importlib
import json
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from pipeline.errors import PortInUseError
from pipeline.metrics.exposition import PATH, collector_registry
from pipeline.metrics.server import serving
from tests.harness.stages.metrics import publisher, scraped

# No test here waits this long unless something is broken.
DEADLINE_S = 60.0


def fetch(url: str, method: str = "GET") -> tuple[int, str, bytes]:
    """Return an answer's status, content type and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=DEADLINE_S) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_server_answers_metrics_health_and_problems() -> None:
    """Other requests get problem documents; the server ends with the stage."""
    _, forwarder = publisher()
    health: dict[str, object] = {"status": "starting", "stage": "s"}
    with serving("127.0.0.1", 0, collector_registry(forwarder.meters), lambda: health) as url:
        status, kind, body = fetch(f"{url}{PATH}?x=1")
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert ("emostream_windows_forwarded_total", (("stage", "main-publisher"),)) in scraped(body)
        assert fetch(f"{url}/healthz") == (503, "application/json", b'{"status":"starting","stage":"s"}')
        health["status"] = "ok"
        assert fetch(f"{url}/healthz")[0] == 200
        for path, method, wanted in (("/", "GET", 404), (PATH, "POST", 501)):
            status, kind, body = fetch(url + path, method)
            assert (status, kind, json.loads(body)["status"]) == (wanted, "application/problem+json", wanted)
            assert "GET /metrics" in json.loads(body)["detail"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url + PATH, timeout=DEADLINE_S)


def test_metrics_port_in_use_raises_port_in_use_error() -> None:
    """The error names the setting."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(PortInUseError, match=f"metrics_port is {port}"),
            serving("127.0.0.1", port, CollectorRegistry(), dict),
        ):
            pass


MODULES = ("pipeline.main_publisher", "pipeline.cluster_publisher", "spark.job")


@pytest.mark.parametrize("module", MODULES)
def test_stage_without_server_has_host_and_metrics_port_options(module: str) -> None:
    """Its command line has both options."""
    assert {"host", "metrics_port"} <= set(importlib.import_module(module).OPTIONS)
