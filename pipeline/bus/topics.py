"""The Kafka topics between the stages: names, partitions and configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.settings import Settings


@dataclass(frozen=True)
class TopicSpec:
    """One topic: its full name, partitions and broker-side configuration."""

    name: str
    partitions: int = 1
    config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Topics:
    """Every topic of one chain. Topics that carry windows have a single partition, which keeps their order."""

    events: TopicSpec
    aggregates: TopicSpec
    progress: TopicSpec
    clients: TopicSpec
    subscribers: TopicSpec
    clusters: TopicSpec
    prefix: str
    retention_ms: int

    def cluster(self, cluster: str) -> TopicSpec:
        """The topic from the main publisher to one cluster's publisher."""
        return self._stream(f"cluster-{cluster}")

    def feed(self, cluster: str) -> TopicSpec:
        """The topic from a cluster's publisher to its subscribers."""
        return self._stream(f"cluster-{cluster}-feed")

    def _stream(self, name: str) -> TopicSpec:
        return TopicSpec(self.prefix + name, config={"retention.ms": str(self.retention_ms)})


def topics(settings: Settings) -> Topics:
    """Return the topics of the chain that `settings` describes."""
    prefix, retention_ms = settings.topic_prefix, settings.retention_ms
    kept = {"retention.ms": str(retention_ms)}
    # Kafka compacts closed segments only; with the default segment size a small topic would never be compacted.
    compacted = {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
    return Topics(
        # The broker's clock stamps the append, so that ingest's delay can be separated from Kafka's.
        events=TopicSpec(
            f"{prefix}emoji-events",
            settings.partitions,
            {**kept, "message.timestamp.type": "LogAppendTime"},
        ),
        aggregates=TopicSpec(f"{prefix}emoji-aggregates", config=kept),
        progress=TopicSpec(f"{prefix}spark-progress", config=kept),
        clients=TopicSpec(f"{prefix}client-registry", config=compacted),
        subscribers=TopicSpec(f"{prefix}subscribers", config=compacted),
        clusters=TopicSpec(f"{prefix}clusters", config=compacted),
        prefix=prefix,
        retention_ms=retention_ms,
    )
