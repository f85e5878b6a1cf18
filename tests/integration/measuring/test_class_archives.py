"""A chain whose environment has the archives of classes starts from them."""

from __future__ import annotations

import psutil
import pytest

from experiments.run.chain import Endpoints
from pipeline import class_archive, jars, java
from spark import job
from tests.harness.processes import maps

pytestmark = pytest.mark.integration


def test_kafka_and_spark_start_from_their_archives(chain_up: Endpoints) -> None:
    """`make jars` has written both; the two JVMs of the chain have them in their memory."""
    runtime = java.find_java()
    archives = {
        class_archive.kafka(runtime, jars.kafka_classpath()),
        job.archive(runtime, jars.spark_connector_jars()),
    }
    chain = psutil.Process(chain_up.pid)
    mapped = {
        archive
        for process in chain.children(recursive=True)
        for archive in archives
        if process.name() == "java" and maps(process.pid, archive)
    }
    assert mapped == archives
