"""Records of `emoji-events` that Kafka loses: to retention, in a crash, with the topic. It is known which they are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from experiments.faults.ledger import Stored, uncovered
from experiments.faults.scene import HarmedChain
from pipeline.broker.data_dir import LOG_DIR
from pipeline.bus.connection import client_config
from pipeline.errors import EmoStreamError
from spark.resume import number_of

UNCOUNTED_S = 3.0
"""For how long reactions come that are not counted when they are lost."""
COUNTED = 100
"""How many records that were counted are lost with those that were not."""
# Kafka's files begin each batch with its first offset (8 bytes) and the length of what follows (4 bytes).
PLACE_BYTES, HEAD_BYTES = 8, 12
ADMIN_S = 30.0


def counted_removed(scene: HarmedChain) -> None:
    """While Spark is stopped, let Kafka remove all that is counted, as retention does."""
    counted: dict[int, int] = {}
    for window in scene.windows():
        for partition, (_, last) in window.offsets.items():
            number = number_of(partition)
            counted[number] = max(counted.get(number, 0), last + 1)
    # Afterwards nobody could count them again.
    scene.stored()
    _remove(scene, counted)
    scene.kill("spark")


def uncounted_removed(scene: HarmedChain) -> Mapping[str, float]:
    """While Spark is stopped, let Kafka remove records that are not counted: of one partition all, of others half.

    The next window has to name them.
    """
    with scene.halted("spark"):
        left = _uncounted(scene)
        removed = {number: records if number == min(left) else _half(records) for number, records in left.items()}
        with scene.flow.quiet():
            # What came since stays.
            lost = scene.lose(each for records in removed.values() for each in records)
            _remove(scene, {number: records[-1].offset + 1 for number, records in removed.items()})
            scene.kill("spark")
    scene.until_flowing()
    expected = {number: (records[0].offset, records[-1].offset) for number, records in removed.items()}
    named = [{number_of(name): span for name, span in window.lost.items()} for window in scene.windows() if window.lost]
    if named != [expected]:
        raise EmoStreamError(f"Kafka removed {expected} uncounted, and windows name as lost: {named}")
    return {"lost_and_named": lost}


def topic_made_again(scene: HarmedChain) -> None:
    """Delete the topic, and make it again, while Spark is stopped; then kill Spark. All that it had is counted before.

    A Spark that goes on would wait until the new topic has as many records as the old one had, and skip these.
    """
    name = scene.names.events.name
    admin = AdminClient(client_config(scene.endpoints.bootstrap_servers))
    with scene.flow.quiet():
        scene.until(lambda: not uncovered(scene.stored(), scene.windows()), "every record is in a window", 60)
        scene.lose([], dict.fromkeys({each.partition for each in scene.stored()}, 0))
        with scene.halted("spark"):
            admin.delete_topics([name])[name].result(ADMIN_S)
            scene.until(lambda: name not in admin.list_topics(timeout=ADMIN_S).topics, "the topic is gone", 60)
            with scene.bus() as bus:
                bus.ensure(scene.names.events)
            scene.kill("spark")


def topic_made_again_unseen(scene: HarmedChain) -> None:
    """Do the same with a Spark that goes on, and sees the new topic when it has more records than the old one had.

    A Spark that believed its offsets would count on behind those of the old topic, and nothing would say so.
    """
    name = scene.names.events.name
    admin = AdminClient(client_config(scene.endpoints.bootstrap_servers))
    scene.until(lambda: _fewest_counted(scene) > COUNTED, "enough reactions are counted")
    with scene.halted("spark"):
        with scene.flow.quiet():
            left = uncovered(scene.stored(), scene.windows())
            with scene.bus() as bus:
                before = bus.ends(name)
            scene.lose(left, dict.fromkeys(before, 0))
            admin.delete_topics([name])[name].result(ADMIN_S)
            scene.until(lambda: name not in admin.list_topics(timeout=ADMIN_S).topics, "the topic is gone", 60)
            with scene.bus() as bus:
                bus.ensure(scene.names.events)
        with scene.bus() as bus:
            scene.until(
                lambda: all(end > before[number] + COUNTED for number, end in bus.ends(name).items()),
                "the new topic has more records than the old one",
                120,
            )


def segment_cut(scene: HarmedChain) -> Mapping[str, float]:
    """Kill every process, as a crash of the machine does, which had not written the end of the log: cut its segments.

    One partition loses all records that are not counted, and some that are; the others half of those that are not. The
    cut is within a batch of records.
    """
    scene.until(lambda: _fewest_counted(scene) > 2 * COUNTED, "enough reactions are counted")
    with scene.halted("spark"):
        left = _uncounted(scene)
        with scene.flow.quiet():
            # All that came since is at the end, too.
            stored = scene.stored()
            cuts = {}
            for number, records in left.items():
                first = records[0].offset - COUNTED if number == min(left) else _half(records)[-1].offset
                cuts[number] = _Cut.at(_newest_segment(scene, number), first)
            uncounted = uncovered(stored, scene.windows())
            gone = [each for each in uncounted if each.offset >= cuts[each.partition].first]
            counted = sum(each.offset >= cuts[each.partition].first for each in stored) - len(gone)
            lost = scene.lose(gone, {number: cut.first for number, cut in cuts.items()})
            scene.crash()
    for cut in cuts.values():
        cut.carry_out()
    scene.up()
    if not lost or counted < COUNTED:
        raise EmoStreamError(f"the cut took {lost} uncounted and {counted} counted records: it has shown nothing")
    return {"lost": lost, "cut_and_counted": counted}


class _Cut:
    """A cut in a segment: `first` is the first offset that is lost."""

    def __init__(self, file: Path, first: int, at_byte: int) -> None:
        self.file = file
        self.first = first
        self._at_byte = at_byte

    @classmethod
    def at(cls, file: Path, offset: int) -> _Cut:
        """Return the cut through the batch that has `offset`, or through the first one of the segment."""
        data, at, found = file.read_bytes(), 0, (0, 0)
        while at + HEAD_BYTES <= len(data):
            first = int.from_bytes(data[at : at + PLACE_BYTES], "big")
            if at and first > offset:
                break
            found = first, at
            at += HEAD_BYTES + int.from_bytes(data[at + PLACE_BYTES : at + HEAD_BYTES], "big")
        return cls(file, *found)

    def carry_out(self) -> None:
        """Cut the file."""
        with self.file.open("r+b") as file:
            file.truncate(self._at_byte + HEAD_BYTES)


def _newest_segment(scene: HarmedChain, partition: int) -> Path:
    folder = Path(scene.endpoints.run_dir) / "kafka" / LOG_DIR / f"{scene.names.events.name}-{partition}"
    return max(folder.glob("*.log"))


def _fewest_counted(scene: HarmedChain) -> int:
    counted = Counter(each.partition for each in scene.stored())
    counted.subtract(each.partition for each in uncovered(scene.stored(), scene.windows()))
    return min(counted.values(), default=0)


def _uncounted(scene: HarmedChain) -> dict[int, list[Stored]]:
    """Let reactions come while Spark is stopped; return those that no window covers, of each partition in order."""
    time.sleep(UNCOUNTED_S)
    found: dict[int, list[Stored]] = {}
    for each in sorted(uncovered(scene.stored(), scene.windows())):
        found.setdefault(each.partition, []).append(each)
    if not found or min(map(len, found.values())) < 2:
        raise EmoStreamError("too few reactions came while Spark was stopped: the scenario has shown nothing")
    return found


def _half(records: Sequence[Stored]) -> Sequence[Stored]:
    return records[: len(records) // 2]


def _remove(scene: HarmedChain, ends: Mapping[int, int]) -> None:
    """Let Kafka remove each partition's records before an offset."""
    admin = AdminClient(client_config(scene.endpoints.bootstrap_servers))
    places = [TopicPartition(scene.names.events.name, number, offset) for number, offset in ends.items()]
    for removed in admin.delete_records(places).values():
        removed.result(ADMIN_S)
