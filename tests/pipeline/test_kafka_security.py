"""The file of a secured Kafka: what it may have, what is said of errors, and what Java's client gets of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import kafka_security, settings
from pipeline.bus.connection import client_config
from pipeline.errors import SettingError

SASL = 'security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=ada\nsasl.password=a\\b"c\n'


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """The properties are those of the whole process."""
    yield
    kafka_security.use("")


def written(folder: Path, text: str) -> Path:
    """Write the file."""
    path = folder / "kafka.properties"
    path.write_text(text)
    return path


def test_clients_get_the_properties(tmp_path: Path) -> None:
    """Those of librdkafka as they stand there; comments and empty lines do not count."""
    path = written(tmp_path, f"# ours\n\n{SASL}")
    assert kafka_security.use(str(path)) == str(path)
    assert client_config("k:1").items() >= {"security.protocol": "SASL_SSL", "sasl.username": "ada"}.items()
    assert kafka_security.is_encrypted()
    kafka_security.use("")
    assert "security.protocol" not in client_config("k:1")
    assert not kafka_security.is_encrypted()


def test_java_gets_the_same_under_its_names(tmp_path: Path) -> None:
    """Passwords are quoted, and certificates are PEM."""
    for name in ("ca", "key", "cert"):
        (tmp_path / name).write_text(f"{name} text")
    files = (
        f"ssl.ca.location={tmp_path}/ca\nssl.key.location={tmp_path}/key\nssl.certificate.location={tmp_path}/cert\n"
    )
    names = kafka_security.parsed(
        written(tmp_path, f"{SASL}{files}ssl.key.password=p\nssl.endpoint.identification.algorithm=none")
    )
    assert kafka_security.for_java(names) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="ada" password="a\\\\b\\"c";',
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": f"{tmp_path}/ca",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.key": "key text",
        "ssl.keystore.certificate.chain": "cert text",
        "ssl.key.password": "p",
        "ssl.endpoint.identification.algorithm": "",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "security.protocol is ''"),
        ("security.protocol=TLS", "security.protocol is 'TLS': give one of PLAINTEXT, SSL"),
        ("security.protocol", "line 1 has no value"),
        ("security.protocol=SSL\nssl.keystore=x", "line 2 has 'ssl.keystore': use one of security.protocol"),
        ("security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI", "sasl.mechanism is 'GSSAPI'"),
        ("security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=ada", "sasl.password is missing"),
        ("security.protocol=SSL\nssl.ca.location=/nowhere/ca.pem", "ssl.ca.location cannot be read"),
        ("security.protocol=SSL\nssl.key.location=/dev/null", "belong together"),
    ],
)
def test_wrong_file_is_explained(tmp_path: Path, text: str, said: str) -> None:
    """With the property, the reason and the remedy; what was in use before stays."""
    kafka_security.use(str(written(tmp_path, "security.protocol=SSL")))
    with pytest.raises(ValueError, match=said.replace("(", "\\(")):
        kafka_security.use(str(written(tmp_path, text)))
    assert kafka_security.is_encrypted()


def test_setting_needs_a_kafka_and_a_file(tmp_path: Path) -> None:
    """The embedded Kafka is open; the error names the setting, and no password."""
    line = settings.parser("x", "y", ("bootstrap_servers", "kafka_security_file"))
    path = written(tmp_path, SASL)
    with pytest.raises(SettingError, match=r"kafka_security_file .*give bootstrap_servers as well"):
        settings.parse(line, ["--kafka-security-file", str(path)])
    with pytest.raises(SettingError, match=r"kafka_security_file .*give a file of name=value lines") as raised:
        settings.parse(line, ["--bootstrap-servers", "k:1", "--kafka-security-file", str(tmp_path / "none")])
    assert "a\\b" not in str(raised.value)
    given, _ = settings.parse(line, ["--bootstrap-servers", "k:1", "--kafka-security-file", str(path)])
    assert given.kafka_security_file == str(path)
