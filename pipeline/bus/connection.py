"""The configuration that every librdkafka client shares."""

from __future__ import annotations

import logging
from typing import Any

from confluent_kafka import KafkaError

from pipeline import kafka_security, logs

log = logs.get(__name__)

LIBRARY_LOG = logging.getLogger("librdkafka")


def client_config(servers: str) -> dict[str, Any]:
    """Return the configuration of a client of the Kafka at `servers`, host:port[,host:port]."""
    return {
        "bootstrap.servers": servers,
        **kafka_security.properties(),
        # The library's default of 10 s would keep a stage away long after a broker has come back.
        "reconnect.backoff.max.ms": 1_000,
        "socket.nagle.disable": True,
        # A broker may ask its clients for metrics; nobody here reads them.
        "enable.metrics.push": False,
        # The other strategy starts over every second of an outage and logs some twenty lines each time.
        "metadata.recovery.strategy": "none",
        "error_cb": log_error,
    }


def log_error(error: KafkaError) -> None:
    """Log a connection error that the library reports; it retries by itself."""
    log.warning("error on a connection to Kafka", reason=error.str())
