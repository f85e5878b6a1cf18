"""Poison: as many records as asked for, of every kind."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from experiments.faults import poison
from pipeline.messages import Window


class Topics:
    """In place of a chain: it counts what is written."""

    def __init__(self) -> None:
        self.bytes = 0
        self.records: Counter[str] = Counter()

    def windows(self) -> list[Any]:
        """Return a window."""
        return [Window("e", 1, 0, 0, {}, 0, [])]

    def write(self, topic: str, *values: bytes | None, key: bytes | None = None) -> None:
        """Count the records."""
        self.records[topic] += len(values)
        self.bytes += sum(len(value or b"") for value in values)


def written(least: int) -> tuple[Counter[str], Topics]:
    """Return how many records of each kind were written, and where."""
    scene = Topics()
    return poison.into(SimpleNamespace(windows=scene.windows, write=scene.write), least), scene  # type: ignore[arg-type]


def test_many_records_are_of_every_kind() -> None:
    """The flood, which alone is more than was asked for, does not count; what is bulky is written some times."""
    counts, scene = written(10_000)
    kinds = {each.name: each for each in poison.kinds(scene)}  # type: ignore[arg-type]
    assert counts.keys() == kinds.keys()
    assert poison.without_flood(counts) >= 10_000
    assert poison.without_flood(counts) == counts.total() - counts[poison.FLOOD]
    light = [count for name, count in counts.items() if not kinds[name].bulky]
    assert min(light) * len(light) >= 10_000
    assert max(light) < 1.1 * min(light)
    assert min(counts.values()) >= poison.BULKY_TIMES
    assert scene.bytes < 64 << 20
    assert set(poison.READ_TOPICS) <= scene.records.keys()


def test_without_a_number_each_kind_is_written_once() -> None:
    """As a scenario does it."""
    counts, scene = written(0)
    assert counts == {each.name: len(each.values) for each in poison.kinds(scene)}  # type: ignore[arg-type]
