"""Noticing that `emoji-events` was deleted and made again while Spark counts it.

Spark knows offsets, and no topic. Of a new topic it would skip as many records as it has counted of the old one, and
say nothing if there are more by the time it looks.
"""

from __future__ import annotations

from pipeline.bus.kafka import KafkaBus
from pipeline.errors import EmoStreamError


class SameTopic:
    """Knows a topic from the moment of its making."""

    def __init__(self, bus: KafkaBus, topic: str) -> None:
        self._bus = bus
        self._topic = topic
        self._id = bus.topic_id(topic)

    def check(self) -> None:
        """Raise EmoStreamError if the topic is another one of that name: what was read of it may begin too late."""
        if self._bus.topic_id(self._topic) != self._id:
            raise EmoStreamError(
                f"topic {self._topic} was deleted and made again: the job has to start again, and then counts the new "
                "topic from its first record"
            )
