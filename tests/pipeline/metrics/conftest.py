"""A scrape of every kind of stage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.addresses import SubscriberId
from pipeline.bus.memory import MemoryBus
from pipeline.messages import Announcement
from pipeline.metrics.exposition import PATH, collector_registry, expose
from pipeline.origins import Origins
from pipeline.registry.app import create_app as registry_app
from pipeline.registry.registrations import Registrations
from pipeline.settings import Settings
from pipeline.subscriber.state import Subscriber
from spark.metrics import BatchMeters
from tests.harness.stages.metrics import NAMES, Ingest, publisher


@pytest.fixture
def expositions() -> Iterator[dict[str, bytes]]:
    """Yield the answer to a scrape of each kind of stage, by name."""
    _, forwarder = publisher()
    subscriber = Subscriber(Settings(), "http://s")
    registrations = Registrations(MemoryBus(), Settings(), pytest.fail)
    batches = BatchMeters(NAMES.events.name, 6.0)
    registrations.assignments.apply_announcement(SubscriberId("1", "1"), Announcement("1", "1", "http://s", 0, 2**62))
    yield {
        "ingest": Ingest().http.get(PATH).data,
        "spark": expose(collector_registry(batches), "")[0],
        "publisher": expose(collector_registry(forwarder.meters), "")[0],
        "subscriber": expose(collector_registry(subscriber.meters), "")[0],
        "registry": registry_app(registrations, "http://r", Origins("", "http://r", 0)).test_client().get(PATH).data,
    }
    registrations.close()
