"""The ports and addresses of the stages' metrics."""

from __future__ import annotations

import pytest

from pipeline.errors import SettingError
from pipeline.messages import Announcement
from pipeline.settings import Settings
from pipeline.supervisor import metrics_ports
from pipeline.supervisor.plan import stages


def test_metrics_ports_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark has the first, the publishers those after it, as arguments; other stages have none."""
    monkeypatch.setattr(metrics_ports.lifecycle, "claim_port", lambda host, port, setting: port or 7)
    settings = Settings(clusters=2, metrics_port=9500)
    plan, urls = metrics_ports.with_ports(stages(settings, 1, ""), settings)
    assert urls == {
        "spark": "http://127.0.0.1:9500",
        "main-publisher": "http://127.0.0.1:9501",
        "cluster-publisher-1": "http://127.0.0.1:9502",
        "cluster-publisher-2": "http://127.0.0.1:9503",
    }
    arguments_of = {stage.name: stage.arguments for stage in plan}
    assert arguments_of["cluster-publisher-2"] == ("--cluster", "2", "--metrics-port", "9503")
    assert all(("--metrics-port" in arguments) is (name in urls) for name, arguments in arguments_of.items())
    assert len(plan) == len(stages(settings, 1, ""))
    assert set(metrics_ports.with_ports(stages(settings, 1, ""), Settings())[1].values()) == {"http://127.0.0.1:7"}


def test_first_port_too_high_raises_setting_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the stage without a port, and the remedy."""
    monkeypatch.setattr(metrics_ports.lifecycle, "claim_port", lambda host, port, setting: port)
    settings = Settings(metrics_port=65535)
    with pytest.raises(SettingError, match=r"metrics_port is 65535 and main-publisher would need port 65536.*or 0"):
        metrics_ports.with_ports(stages(settings, None, ""), settings)


def test_addresses_include_announced_subscribers() -> None:
    """Every stage's metrics URL; those of subscribers as announced."""
    announcements = [Announcement("2", "1", "http://s:8102", 0, 1)]
    assert metrics_ports.addresses({"ingest": "http://i:8000"}, announcements) == {
        "ingest": "http://i:8000/metrics",
        "subscriber-1-2": "http://s:8102/metrics",
    }
