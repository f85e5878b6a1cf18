"""The main publisher: every window goes to every cluster, one record a cluster."""

from __future__ import annotations

import msgspec

from pipeline import lifecycle, logs, settings
from pipeline.buses.kafka_bus import KafkaBus
from pipeline.forwarding import Forwarder, View
from pipeline.messages import Window
from pipeline.metrics.exposition import registry
from pipeline.metrics.server import serving
from pipeline.topics import topics

STAGE = "main-publisher"
OPTIONS = ("bootstrap_servers", "kafka_wait_s", "topic_prefix", "clusters", "host", "metrics_port", "log_level")


def for_clusters(window: Window) -> Window:
    """Every cluster gets the whole window; what it makes of it is its own publisher's business.

    Only `carried` stays behind: it is the Spark job's memory, and nothing that is shown.
    """
    return msgspec.structs.replace(window, carried=msgspec.UNSET)


def run(values: settings.Settings) -> None:
    """Forward `emoji-aggregates` to `cluster-1` … `cluster-{clusters}` until told to stop."""
    stop = lifecycle.stop_event()
    names = topics(values)
    outputs: dict[str, View] = {names.cluster(str(n)).name: for_clusters for n in range(1, values.clusters + 1)}
    bus = KafkaBus(values.kafka, values.kafka_wait_s)
    forwarder = Forwarder(STAGE, bus, names.aggregates.name, bus, outputs)
    try:
        with serving(values.host, values.metrics_port, registry(forwarder.meters), forwarder.health):
            bus.ensure(names.aggregates, *(names.cluster(str(n)) for n in range(1, values.clusters + 1)))
            forwarder.run(stop)
    finally:
        bus.close()


def main() -> None:
    """`python -m pipeline.main_publisher`."""
    values = settings.main("pipeline.main_publisher", "Route every window to every cluster.", OPTIONS)
    logs.configure(STAGE, values.log_level)
    lifecycle.run_main("pipeline.main_publisher", lambda: run(values))


if __name__ == "__main__":
    main()
