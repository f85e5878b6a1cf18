"""A cluster's publisher: applies the cluster's view to each window and writes it to the cluster's feed.

It is also the bridge to a remote cluster: with `feed_bootstrap_servers` the feed is on the cluster's own Kafka, and its
subscribers do not use the main Kafka.
"""

from __future__ import annotations

import msgspec

from pipeline import cluster_routes, environment, lifecycle, logs, settings
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.dead_letters import DeadLetters
from pipeline.forwarding import Forwarder
from pipeline.messages import Window
from pipeline.metrics.exposition import collector_registry
from pipeline.metrics.server import serving

OPTIONS = (
    "bootstrap_servers",
    "kafka_security_file",
    "feed_bootstrap_servers",
    "kafka_wait_s",
    "topic_prefix",
    "cluster",
    "top_n",
    "host",
    "metrics_port",
    "log_level",
)


def cluster_view(window: Window, cluster: str, top_n: int) -> Window:
    """Return the window as `cluster` shows it: the `top_n` most frequent types (0: all), most frequent first.

    `total` still counts every type, so that a shortened list differs from a small audience.
    """
    ranked = sorted(window.reactions, key=lambda cell: (-cell.count, cell.emoji_type))
    return msgspec.structs.replace(window, cluster=cluster, reactions=ranked[:top_n] if top_n else ranked)


def run(values: settings.Settings) -> None:
    """Join the main publisher's routes and forward `cluster-{c}` to `cluster-{c}-feed`, until a signal stops it."""
    stop = lifecycle.stop_event()
    names = topics(values)
    source, feed = names.cluster(values.cluster), names.feed(values.cluster)
    main_bus = KafkaBus(values.kafka, values.kafka_wait_s)
    feed_bus = KafkaBus(values.feed_kafka, values.kafka_wait_s, setting=values.feed_setting)
    stage = f"cluster-publisher-{values.cluster}"
    letters = DeadLetters(main_bus, names, stage)
    forwarder = Forwarder(
        stage=stage,
        source=main_bus,
        source_topic=source.name,
        sink=feed_bus,
        outputs={feed.name: lambda window: cluster_view(window, values.cluster, values.top_n)},
        letters=letters,
    )
    try:
        with serving(values.host, values.metrics_port, collector_registry(forwarder.meters), forwarder.health):
            main_bus.ensure(source, names.dead_letters)
            feed_bus.ensure(feed)
            cluster_routes.join(main_bus, names, [values.cluster])
            forwarder.run(stop)
    finally:
        letters.close()
        main_bus.close()
        feed_bus.close()


def main() -> None:
    """`python -m pipeline.cluster_publisher --cluster 1`."""
    values = settings.main(
        "pipeline.cluster_publisher",
        "Apply one cluster's view to every window and write it to the cluster's feed.",
        OPTIONS,
    )
    logs.configure(f"cluster-publisher-{values.cluster}", values.log_level)
    lifecycle.run_main("pipeline.cluster_publisher", lambda: run(values))


if __name__ == "__main__":
    environment.restart_without_others()
    main()
