"""The metrics of the registry, and its list of subscribers to scrape."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.addresses import SubscriberId
from pipeline.bus.memory import MemoryBus
from pipeline.messages import Announcement
from pipeline.metrics.exposition import PATH
from pipeline.origins import Origins
from pipeline.registry.app import create_app as registry_app
from pipeline.registry.metrics import scrape_targets
from pipeline.registry.registrations import Registrations
from pipeline.settings import Settings
from tests.harness.stages.metrics import at, scraped


@pytest.fixture
def registrations() -> Iterator[Registrations]:
    """Yield a registry's parts over a bus in memory."""
    made = Registrations(MemoryBus(), Settings(), pytest.fail)
    yield made
    made.close()


def announce(registrations: Registrations, subscriber: str, announced_ns: int) -> None:
    """Announce a subscriber of cluster 1 to the registry."""
    announcement = Announcement(subscriber, "1", f"http://host:81{subscriber}/base", 0, announced_ns)
    with registrations.lock:
        registrations.assignments.apply_announcement(SubscriberId("1", subscriber), announcement)


def test_registrations_moves_and_removals_are_counted(registrations: Registrations) -> None:
    """Clients and subscribers are gauges of the current state."""
    http = registry_app(registrations, "http://r", Origins("", "", 8080)).test_client()
    assert http.post("/clients").status_code == 503
    announce(registrations, "1", registrations.clock_ns())
    clients = [http.post("/clients").get_json() for _ in range(2)]
    announce(registrations, "1", 0)
    announce(registrations, "2", registrations.clock_ns())
    assert http.get(f"/clients/{clients[0]['client_id']}/stream").status_code == 307
    removed = clients[1]
    headers = {"Authorization": f"Bearer {removed['token']}"}
    assert http.delete(f"/clients/{removed['client_id']}", headers=headers).status_code == 204
    seen = scraped(http.get(PATH).data)
    assert at(seen, "emostream_registry_registrations_total") == 2
    assert at(seen, "emostream_registry_moves_total") == 1
    assert at(seen, "emostream_registry_removals_total") == 1
    assert at(seen, "emostream_registry_clients", cluster="1") == 1
    assert at(seen, "emostream_registry_subscribers", cluster="1", state="live") == 1
    assert at(seen, "emostream_registry_subscribers", cluster="1", state="silent") == 1
    assert at(seen, "emostream_registry_requests_refused_total", status="503") == 1
    assert at(seen, "emostream_registry_waiting_records") == 0


def test_targets_lists_live_subscribers(registrations: Registrations) -> None:
    """With scheme, path and stage, in the form of Prometheus' HTTP service discovery."""
    http = registry_app(registrations, "http://r", Origins("", "", 8080)).test_client()
    assert http.get("/targets").get_json() == []
    announce(registrations, "1", registrations.clock_ns())
    announce(registrations, "2", 0)
    answer = http.get("/targets")
    assert answer.content_type == "application/json"
    labels = {"__scheme__": "http", "__metrics_path__": "/base/metrics", "stage": "subscriber-1-1"}
    assert answer.get_json() == [{"targets": ["host:811"], "labels": labels}]
    assert scrape_targets([]) == []
