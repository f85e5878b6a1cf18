"""How the clients of this process prove themselves to a secured Kafka, and check it: one file of properties.

The file has librdkafka's names, as `name=value` lines. Spark's client is Java's, and gets the same under its own names.
What is in the file is never shown: it has passwords.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
FILES = ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location")
NAMES = (
    *("security.protocol", "sasl.mechanism", "sasl.username", "sasl.password"),
    *(*FILES, "ssl.key.password", "ssl.endpoint.identification.algorithm"),
)

_in_use: dict[str, str] = {}


def use(path: str) -> str:
    """Let all clients of this process use the properties in the file `path`, or none for ""; return its full path.

    Raises ValueError, whose text has the name of the wrong property, the reason and the remedy.
    """
    read = parsed(Path(path)) if path else {}
    _in_use.clear()
    _in_use.update(read)
    return str(Path(path).resolve()) if path else ""


def properties() -> Mapping[str, str]:
    """Return the properties in use, for librdkafka."""
    return _in_use


def is_encrypted() -> bool:
    """Return whether the clients speak TLS."""
    return _in_use.get("security.protocol", "").endswith("SSL")


def for_java(given: Mapping[str, str]) -> dict[str, str]:
    """Return properties as Kafka's Java client names them."""
    found = {name: given[name] for name in ("security.protocol", "sasl.mechanism", "ssl.key.password") if name in given}
    if "sasl.mechanism" in given:
        user, password = (_quoted(given[name]) for name in ("sasl.username", "sasl.password"))
        found["sasl.jaas.config"] = (
            f"{MECHANISMS[given['sasl.mechanism']]} required username={user} password={password};"
        )
    if "ssl.ca.location" in given:
        found |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": given["ssl.ca.location"]}
    if "ssl.key.location" in given:
        found |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.key": _text(given["ssl.key.location"]),
            "ssl.keystore.certificate.chain": _text(given["ssl.certificate.location"]),
        }
    if given.get("ssl.endpoint.identification.algorithm") == "none":
        found["ssl.endpoint.identification.algorithm"] = ""
    return found


def parsed(path: Path) -> dict[str, str]:
    """Return the properties in a file. Raises ValueError as `use` does."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"give a file of name=value lines ({getattr(error, 'strerror', None) or error})") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not value:
            raise ValueError(f"line {number} has no value: write name=value")
        if name not in NAMES:
            raise ValueError(f"line {number} has {name[:60]!a}: use one of {', '.join(NAMES)}")
        found[name] = value
    _check(found)
    return found


def _check(found: Mapping[str, str]) -> None:
    protocol = found.get("security.protocol", "")
    if protocol not in PROTOCOLS:
        raise ValueError(f"security.protocol is {protocol!r}: give one of {', '.join(PROTOCOLS)}")
    if protocol.startswith("SASL"):
        if (mechanism := found.get("sasl.mechanism", "")) not in MECHANISMS:
            raise ValueError(f"sasl.mechanism is {mechanism!r}: give one of {', '.join(MECHANISMS)}")
        for name in ("sasl.username", "sasl.password"):
            if name not in found:
                raise ValueError(f"{name} is missing: security.protocol {protocol} needs it")
    for name in FILES:
        if name in found:
            try:
                _text(found[name])
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ValueError(f"{name} cannot be read ({reason}): give the path of a PEM file") from error
    if ("ssl.key.location" in found) != ("ssl.certificate.location" in found):
        raise ValueError("ssl.key.location and ssl.certificate.location belong together: give both, or neither")


def _text(path: str) -> str:
    return Path(path).read_text(encoding="ascii")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
