"""The Kafka topics between the stages: names, partitions and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.settings import Settings

OTHERS_SHARE = 16
"""Every topic but emoji-events may take this part of its bytes."""
LETTERS_MAX_BYTES = 16 << 20
SEGMENT_MIN_BYTES, SEGMENT_MAX_BYTES = 1 << 20, 128 << 20


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
    dead_letters: TopicSpec
    prefix: str
    kept: Mapping[str, str]
    """The configuration of a topic of windows: how long and how much of it Kafka keeps."""

    def cluster(self, cluster: str) -> TopicSpec:
        """The topic from the main publisher to one cluster's publisher."""
        return self._stream(f"cluster-{cluster}")

    def feed(self, cluster: str) -> TopicSpec:
        """The topic from a cluster's publisher to its subscribers."""
        return self._stream(f"cluster-{cluster}-feed")

    def _stream(self, name: str) -> TopicSpec:
        return TopicSpec(self.prefix + name, config=dict(self.kept))


def topics(settings: Settings) -> Topics:
    """Return the topics of the chain that `settings` describes."""
    prefix = settings.topic_prefix
    kept = _kept(settings, settings.retention_bytes // OTHERS_SHARE)
    # Kafka compacts closed segments only; with the default segment size a small topic would never be compacted.
    compacted = {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
    return Topics(
        # The broker's clock stamps the append, so that ingest's delay can be separated from Kafka's.
        events=TopicSpec(
            f"{prefix}emoji-events",
            settings.partitions,
            {
                **_kept(settings, settings.retention_bytes // settings.partitions),
                "message.timestamp.type": "LogAppendTime",
            },
        ),
        aggregates=TopicSpec(f"{prefix}emoji-aggregates", config=kept),
        progress=TopicSpec(f"{prefix}spark-progress", config=kept),
        clients=TopicSpec(f"{prefix}client-registry", config=compacted),
        subscribers=TopicSpec(f"{prefix}subscribers", config=compacted),
        clusters=TopicSpec(f"{prefix}clusters", config=compacted),
        # Compacted as well, for a stage that starts again writes the same letters again. The registry reads all of it.
        dead_letters=TopicSpec(
            f"{prefix}dead-letters",
            config={
                **_kept(settings, min(LETTERS_MAX_BYTES, settings.retention_bytes // OTHERS_SHARE)),
                "cleanup.policy": "compact,delete",
            },
        ),
        prefix=prefix,
        kept=kept,
    )


def _kept(settings: Settings, most_bytes: int) -> dict[str, str]:
    """Return the configuration of a topic of which Kafka keeps this much of each partition.

    Kafka removes whole segments, and never the one that it writes: the bound is exceeded by up to a segment.
    """
    segment_bytes = min(SEGMENT_MAX_BYTES, max(SEGMENT_MIN_BYTES, most_bytes // 8))
    return {
        "retention.ms": str(settings.retention_ms),
        "retention.bytes": str(most_bytes),
        "segment.bytes": str(segment_bytes),
    }
