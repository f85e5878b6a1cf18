"""A topic that was deleted and made again is not taken for the one before it, nor are its records counted on."""

from __future__ import annotations

from typing import cast

import pytest

from pipeline.bus.kafka import KafkaBus
from pipeline.errors import EmoStreamError
from spark.job import _reason
from spark.same_topic import SameTopic


class Ids:
    """A bus that knows only the id of a topic."""

    def __init__(self, *ids: str) -> None:
        self._ids = list(ids)

    def topic_id(self, topic: str) -> str:
        """Return the next one."""
        return self._ids.pop(0)


def test_another_id_is_another_topic() -> None:
    """It is compared with the first one; the error says what the job does about it."""
    same = SameTopic(cast(KafkaBus, Ids("a", "a", "b")), "emoji-events")
    same.check()
    with pytest.raises(EmoStreamError, match="topic emoji-events was deleted and made again: the job has to start"):
        same.check()


def test_the_reason_of_a_failed_query_is_our_own_error() -> None:
    """Spark's own line says only that Python raised something."""
    text = (
        "[STREAM_FAILED] Query terminated with exception\nTraceback (most recent call last):\n"
        "pipeline.errors.EmoStreamError: topic t was deleted\n\nat py4j"
    )
    assert _reason(text) == "topic t was deleted"
    assert _reason("boom\nat java") == "boom"
