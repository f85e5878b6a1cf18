"""The services of deploy/compose.yaml as processes of this machine: each starts with its own command, variables and
health check, on free ports and with topics of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from experiments.run.chain import Endpoints, settings_of
from tests.deploy.test_compose import OURS, port_of
from tests.harness.processes import module, run_to_end, running
from tests.harness.waiting import until

pytestmark = pytest.mark.integration
# One of each kind; Spark needs half a minute, and the chain's own is asked instead.
KINDS = ["ingest", "main-publisher", "cluster-publisher-1", "subscriber-1-1", "registry"]


def free_ports(number: int) -> list[int]:
    """Return ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


def own(command: list[str], old: int, new: int) -> list[str]:
    """Return a service's command line for this machine: this interpreter, and another port."""
    assert command[0] == "python"
    return [sys.executable, *(word.replace(str(old), str(new)) for word in command[1:])]


def test_each_service_starts_and_its_health_check_passes(two_subscribers: Endpoints, tmp_path: Path) -> None:
    """Before that the check fails; each ends with status 0 when its container is stopped."""
    kafka = settings_of(two_subscribers).kafka
    with ExitStack() as stack:
        processes, checks = {}, {}
        for name, port in zip(KINDS, free_ports(len(KINDS)), strict=True):
            service, old = OURS[name], port_of(OURS[name])
            variables = {key: str(value).replace(str(old), str(port)) for key, value in service["environment"].items()}
            variables |= {"EMOSTREAM_BOOTSTRAP_SERVERS": kafka, "EMOSTREAM_TOPIC_PREFIX": "compose-"}
            own_port = {"ingest": "EMOSTREAM_INGEST_PORT", "registry": "EMOSTREAM_REGISTRY_PORT"}
            if name in own_port:
                variables[own_port[name]] = str(port)
            checks[name] = own(service["healthcheck"]["test"][1:], old, port)
            assert run_to_end(checks[name]).returncode == 1
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            processes[name] = stack.enter_context(
                running(own(service["command"], old, port), env={**os.environ, **variables}, stderr=log)
            )
        for name, check in checks.items():
            until(lambda check=check: run_to_end(check).returncode == 0, f"{name} is healthy", 90, 0.5)
        for process in processes.values():
            process.terminate()
        assert {name: process.wait(30) for name, process in processes.items()} == dict.fromkeys(KINDS, 0)


def test_spark_answers_the_health_check(two_subscribers: Endpoints) -> None:
    """With the same module, at its own port for metrics."""
    ready_file = Path(two_subscribers.run_dir) / "ready.json"
    url = json.loads(ready_file.read_text(encoding="utf-8"))["metrics"]["spark"]
    done: subprocess.CompletedProcess[str] = run_to_end(module("pipeline.health", url.replace("/metrics", "/healthz")))
    assert (done.returncode, "spark" in done.stdout) == (0, True), done.stderr
