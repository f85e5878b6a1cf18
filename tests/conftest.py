"""Fixtures that more than one package's tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker.embedded import EmbeddedKafka


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One real Kafka for the whole run; a test makes topics with names of its own."""
    folder: Path = tmp_path_factory.mktemp("kafka")
    with EmbeddedKafka(folder) as kafka:
        yield kafka
