"""The embedded Kafka, started, restarted, and failing to start."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from pipeline import class_archive
from pipeline.broker import EmbeddedKafka
from pipeline.broker import data_dir as broker_data
from pipeline.errors import BrokerError, SettingError
from tests.harness.processes import maps
from tests.pipeline.broker.test_data_dir import META, lay_out

GONE_S = 20


@pytest.mark.parametrize(
    ("options", "culprit"),
    [({"port": 70000}, "port is 70000"), ({"port": -1}, "port is -1"), ({"heap_mb": 1}, "heap_mb is 1")],
)
def test_invalid_port_or_heap_raises_setting_error(tmp_path: Path, options: dict[str, int], culprit: str) -> None:
    """The error names setting and value, before anything starts."""
    with pytest.raises(SettingError, match=culprit):
        EmbeddedKafka(tmp_path, **options)


def write(servers: str, topic: str, values: list[bytes]) -> None:
    """Create the topic and send the values to it."""
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    with closing(KafkaProducer(bootstrap_servers=servers, max_request_size=4 << 20)) as producer:
        for value in values:
            producer.send(topic, value).get(GONE_S)


def read(servers: str, topic: str, count: int) -> list[bytes]:
    """Return the first `count` values of the topic."""
    options = {"bootstrap_servers": servers, "auto_offset_reset": "earliest", "group_id": None}
    with closing(KafkaConsumer(topic, **options)) as consumer:
        return [next(consumer).value for _ in range(count)]


@pytest.mark.integration
def test_restart_on_another_port_keeps_topics_and_cluster_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a directory whose name has special characters. The second one starts from the classes of the first."""
    folder = tmp_path / "a b,c=ü"
    archive = tmp_path / "kafka ü.jsa"
    monkeypatch.setattr(class_archive, "kafka", lambda *_: archive)
    with EmbeddedKafka(folder, archive_to=archive) as kafka:
        first, cluster_id = kafka.bootstrap_servers, broker_data.cluster_id(folder)
        write(first, "kept", [b"one", b"two"])
    assert kafka.pid is None
    class_archive.size_file(archive).write_text(str(archive.stat().st_size))
    with EmbeddedKafka(folder) as kafka:
        assert kafka.pid is not None
        assert maps(kafka.pid, archive)
        assert "[cds" not in kafka.log_path.read_text(encoding="utf-8")
        assert kafka.bootstrap_servers != first
        assert read(kafka.bootstrap_servers, "kept", 2) == [b"one", b"two"]
        assert broker_data.cluster_id(folder) == cluster_id
        with pytest.raises(BrokerError, match="is used by a running broker"):
            EmbeddedKafka(folder).start()
        assert read(kafka.bootstrap_servers, "kept", 2) == [b"one", b"two"]


@pytest.mark.integration
def test_failed_start_raises_with_end_of_kafkas_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause here is the data directory of another node, and not a damaged archive of classes."""
    archive = tmp_path / "kafka.jsa"
    archive.write_bytes(b"not an archive")
    class_archive.size_file(archive).write_text("14")
    monkeypatch.setattr(class_archive, "kafka", lambda *_: archive)
    lay_out(tmp_path, META.replace("node.id=1", "node.id=2"), False, False)
    with pytest.raises(BrokerError, match=r"exit code 1; .*kafka\.log ends:\n") as caught:
        EmbeddedKafka(tmp_path).start()
    assert "node.id" in str(caught.value) or "node id" in str(caught.value)
    broker_data.own(tmp_path).close()


@pytest.mark.integration
def test_shared_broker_takes_records_up_to_4_mb(broker: EmbeddedKafka) -> None:
    """The fixture that other tests use accepts and returns records of several MB."""
    large = os.urandom(3 << 20)
    write(broker.bootstrap_servers, "shared", [b"one", large])
    assert read(broker.bootstrap_servers, "shared", 2) == [b"one", large]
