"""What the pipeline's tests share: the bus contract runs against memory and against the real Kafka."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import hypothesis
import pytest

from pipeline import lifecycle
from pipeline.bus.base import Bus
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec

# How long an example takes says something about the machine, not about the code.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def nobody_is_parent() -> Iterator[None]:
    """Let no server that a test ran in this process stay the parent of what later tests start."""
    yield
    os.environ.pop(lifecycle.PARENT_PID, None)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """A bus: the in-memory one, then the real one on the broker of the whole run."""
    if request.param == "memory":
        yield MemoryBus()
    else:
        with closing(KafkaBus(request.getfixturevalue("broker").bootstrap_servers)) as kafka:
            yield kafka


@pytest.fixture
def make_topic(bus: Bus) -> Callable[..., str]:
    """Return a function that makes a topic no other test uses, of so many partitions, and gives its name."""

    def make(partitions: int = 1) -> str:
        name = f"t-{uuid.uuid4().hex}"
        bus.ensure(TopicSpec(name, partitions))
        return name

    return make
