"""The health check for containers: its exit code is the stage's answer."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from pipeline import health
from pipeline.metrics.server import serving


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("starting", 1)])
def test_exit_code_follows_the_answer(status: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """200 is healthy; 503 is not, and its body says why."""
    with serving("127.0.0.1", 0, CollectorRegistry(), lambda: {"status": status, "stage": "spark"}) as url:
        assert health.main([f"{url}/healthz"]) == code
    printed = capsys.readouterr()
    assert f'"status":"{status}"' in (printed.err if code else printed.out)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/healthz", "127.0.0.1", "ftp://"])
def test_no_answer_is_unhealthy(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens there, or it is no address: one line, status 1, no traceback."""
    assert health.main([url]) == 1
    assert capsys.readouterr().err.startswith(f"{url}: ")
