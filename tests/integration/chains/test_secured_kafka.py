"""A real Kafka with TLS and passwords: every client of the chain gets in with the file, and none without it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from experiments.run import chain
from pipeline import kafka_security
from pipeline.broker import data_dir
from pipeline.broker.embedded import EmbeddedKafka
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import KafkaUnreachableError, SettingError
from pipeline.lifecycle import claim_port
from pipeline.messages import decode_window
from tests.harness.http import post_status
from tests.harness.processes import module, run_to_end
from tests.harness.stages.bus import append
from tests.harness.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@dataclass
class Secured:
    """Where the secured listener is, and the folder with the files of its clients."""

    servers: str
    folder: Path

    def file(self, password: str = "right") -> str:
        """A file of properties."""
        path = self.folder / f"{password}.properties"
        path.write_text(
            "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=ada\n"
            f"sasl.password={password}\nssl.ca.location={self.folder}/ca.pem\n"
        )
        return str(path)


def certificate(folder: Path) -> None:
    """Write ca.pem, a certificate of 127.0.0.1 that stands for itself, and server.pem, the same with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kafka")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(public)
    (folder / "server.pem").write_bytes(private + public)


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secured]:
    """A Kafka with a second listener, which takes TLS and the user ada."""
    certificate(tmp_path)
    port = claim_port("127.0.0.1", 0, "port")
    plain = data_dir.server_properties

    def with_tls(client_port: int, controller_port: int) -> str:
        lines = plain(client_port, controller_port).splitlines()
        found = dict(line.split("=", 1) for line in lines)
        for names in ("listeners", "advertised.listeners"):
            found[names] += f",SECURED://127.0.0.1:{port}"
        found["listener.security.protocol.map"] += ",SECURED:SASL_SSL"
        found |= {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.secured.plain.sasl.jaas.config": f'{LOGIN} user_ada="right";',
            "listener.name.secured.ssl.keystore.type": "PEM",
            "listener.name.secured.ssl.keystore.location": f"{tmp_path}/server.pem",
        }
        return "".join(f"{name}={value}\n" for name, value in found.items())

    monkeypatch.setattr(data_dir, "server_properties", with_tls)
    with EmbeddedKafka(tmp_path / "kafka"):
        yield Secured(f"127.0.0.1:{port}", tmp_path)
    kafka_security.use("")


def test_whole_chain_works_with_the_file(secured: Secured) -> None:
    """`up` is ready once a window has passed each stage; a reaction is counted; commands and the instrument get in."""
    parameters = {
        "bootstrap_servers": secured.servers,
        "kafka_security_file": secured.file(),
        "trigger_s": 1.0,
        "clusters": 1,
        "subscribers": 1,
        "ingest_workers": 1,
        "ack": "durable",
    }
    with (
        chain.started(parameters, secured.folder / "run") as endpoints,
        closing(KafkaBus(endpoints.bootstrap_servers)) as bus,
    ):
        # As the instrument does, which knows the chain by its ready file.
        names = topics(chain.settings_of(endpoints))
        reaction = {"user_id": "ada", "emoji_type": "😂", "timestamp": "2026-11-30T20:00:00Z"}
        assert post_status(f"{endpoints.ingest}/reactions", reaction) == 202
        until(
            lambda: sum(decode_window(record.value).total for record in bus.tail(names.aggregates.name, 99)) == 1,
            "the reaction is counted",
        )
        append(bus, names.aggregates.name, b"nonsense")
        until(lambda: bus.tail(names.dead_letters.name, 9), "there is a dead letter")
        shown = run_to_end(module("pipeline", "dead-letters", "--run-dir", endpoints.run_dir))
        assert [json.loads(line)["value"] for line in shown.stdout.splitlines()] == ["nonsense"], shown.stderr


def test_without_the_right_file_nobody_gets_in(secured: Secured) -> None:
    """The error names the setting, or says that Kafka did not answer."""
    with (
        closing(KafkaBus(secured.servers, wait_s=1.0)) as bus,
        pytest.raises(SettingError, match="kafka_security_file"),
    ):
        bus.check()
    kafka_security.use(secured.file("wrong"))
    with closing(KafkaBus(secured.servers, wait_s=2.0)) as bus, pytest.raises(KafkaUnreachableError):
        bus.check()
