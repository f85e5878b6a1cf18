"""Forwarding: every window once to every output, also after a crash, with a hop per stage."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import closing
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bus import records
from pipeline.bus.base import Bus, Record
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec
from pipeline.cluster_publisher import cluster_view
from pipeline.errors import KafkaUnreachableError, MessageError
from pipeline.forwarding import TAIL, Forwarder
from pipeline.main_publisher import decode_emitted, for_clusters
from pipeline.messages import JUMP_MAX, HighWater, Hop, TypeCount, Window, decode_window, encode
from tests.harness.waiting import until

DEADLINE_S = 60.0
Topic = Callable[..., str]


def window(number: int, epoch: str = "e", hops: tuple[Hop, ...] = ()) -> Window:
    """Return a small window."""
    cells = [TypeCount("😂", 12, 2), TypeCount("❤️", 3, 1)]
    return Window(epoch, number, 1, 2, {"emoji-events-0": (number, number)}, 15, cells, hops=hops)


def send(bus: Bus, topic: str, *messages: Window | bytes | None) -> None:
    """Append windows, or other records."""
    with closing(bus.writer()) as writer:
        for message in messages:
            writer.send(topic, encode(message) if isinstance(message, Window) else message, key=b"k")
        writer.flush()


def received(bus: Bus, topic: str) -> list[Window]:
    """Return every window on a topic."""
    return [decode_window(record.value) for record in bus.tail(topic, 10_000)]


def ids(windows: list[Window]) -> list[str]:
    """Return the windows' ids in order."""
    return [each.event_id for each in windows]


def forwarder(bus: Bus, source: str, *outputs: str, clock_ns: Callable[[], int] | None = None) -> Forwarder:
    """Return a forwarder with the main publisher's view for each output."""
    ticks = itertools.count(1_000)
    return Forwarder("stage", bus, source, bus, dict.fromkeys(outputs, for_clusters), clock_ns or (lambda: next(ticks)))


class CrashError(Exception):
    """The process crashes here."""


class CrashingBus:
    """A bus whose writer crashes after `after` records, each of which is in the log."""

    def __init__(self, bus: Bus, after: int) -> None:
        self._bus = bus
        self._left = after

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    def writer(self) -> CrashingBus:
        """Return this object, which is the writer as well."""
        self._writer = self._bus.writer()
        return self

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Append at once, or crash."""
        if not self._left:
            raise CrashError
        self._left -= 1
        self._writer.send(topic, value, key=key)
        self._writer.flush()

    def flush(self, timeout_s: float = 10.0) -> None:
        """Do nothing: every record is in the log already."""

    def close(self) -> None:
        """Close the real writer."""
        self._writer.close()


@given(seen=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20)), max_size=40))
def test_window_is_new_once_per_epoch(seen: list[tuple[str, int]]) -> None:
    """A window is new if its number is above all seen in its epoch; epochs are independent."""
    mark = HighWater()
    highest: dict[str, int] = {}
    for epoch, number in seen:
        assert mark.is_new(window(number, epoch)) is (number > highest.get(epoch, -1))
        mark.raise_to(window(number, epoch))
        assert not mark.is_new(window(number, epoch))
        highest[epoch] = max(number, highest.get(epoch, -1))


CELLS = st.dictionaries(st.sampled_from("🔥👏😍🎉😮😢👍🙌"), st.integers(1, 40)).map(
    lambda counts: [TypeCount(emoji, count, -(-count // 10)) for emoji, count in counts.items()]
)


@given(cells=CELLS, top_n=st.integers(0, 10), cluster=st.sampled_from(["1", "north"]))
def test_cluster_view_keeps_top_types_and_total(cells: list[TypeCount], top_n: int, cluster: str) -> None:
    """The most frequent types stay unchanged and in order; total, offsets and identity do not change."""
    total = sum(cell.count for cell in cells)
    whole = msgspec.structs.replace(window(3), reactions=cells, total=total)
    seen = cluster_view(whole, cluster, top_n)
    assert msgspec.structs.replace(seen, cluster=None, reactions=cells) == whole
    assert seen.cluster == cluster
    assert len(seen.reactions) == (min(top_n, len(cells)) if top_n else len(cells))
    assert {cell.emoji_type for cell in seen.reactions} <= {cell.emoji_type for cell in cells}
    assert all(cell in cells for cell in seen.reactions)
    ranks = [(-cell.count, cell.emoji_type) for cell in seen.reactions]
    assert ranks == sorted(ranks)
    left_out = [cell.count for cell in cells if cell not in seen.reactions]
    assert not left_out or max(left_out) <= min(cell.count for cell in seen.reactions)


def test_every_window_is_forwarded_once_to_every_output(bus: Bus, make_topic: Topic) -> None:
    """Each output gets every window in order; repeated, older and already forwarded ones are dropped."""
    source, left, right = make_topic(), make_topic(), make_topic()
    send(bus, source, window(0), window(1), window(1), window(0), window(0, "f"), window(2), window(0, "f"))
    stage = forwarder(bus, source, left, right)
    assert stage.step(bus.tail(source, 100)) == 8
    assert stage.step(bus.tail(source, 100)) == 0
    assert ids(received(bus, left)) == ids(received(bus, right)) == ["e:0", "e:1", "f:0", "e:2"]


def test_hop_is_appended_and_nothing_else_changes(bus: Bus, make_topic: Topic) -> None:
    """The hop has the stage's name, the window's offset in the input, and both times."""
    source, output = make_topic(), make_topic()
    before = Hop("before", 7, 10, 11)
    send(bus, source, b"nonsense", window(4, hops=(before,)))
    forwarder(bus, source, output, clock_ns=iter(range(101, 200)).__next__).step(bus.tail(source, 100))
    (seen,) = received(bus, output)
    hop = seen.hops[-1]
    assert seen == window(4, hops=(before, hop))
    assert (hop.stage, hop.offset) == ("stage", 1)
    assert 100 < hop.received_ns < hop.sent_ns


def test_foreign_window_with_a_great_number_silences_no_epoch(bus: Bus, make_topic: Topic) -> None:
    """It is skipped, and the windows after it are forwarded; a gap of removed records is no such thing."""
    source, output = make_topic(), make_topic()
    far = msgspec.structs.replace(window(2**62), offsets={})
    send(bus, source, window(0), window(1), far, window(2), window(1 + 2**20), window(2 + 2**20))
    stage = forwarder(bus, source, output)
    stage.step(bus.tail(source, 100))
    assert [each.window for each in received(bus, output)] == [0, 1, 2, 1 + 2**20, 2 + 2**20]
    assert stage.meters._by_reason["implausible"]._value.get() == 1


PARTITIONS = ["emoji-events-0", "emoji-events-1", "emoji-events-2"]


@pytest.mark.parametrize(
    ("number", "offsets", "follows"),
    [
        (6, {PARTITIONS[0]: (10, 10)}, True),
        (6, {PARTITIONS[1]: (8, 9), PARTITIONS[2]: (0, 4)}, True),
        (5 + 2**40, {PARTITIONS[0]: (2**40, 2**41)}, True),
        (6, {PARTITIONS[2]: (0, 4)}, True),
        (5 + JUMP_MAX, {PARTITIONS[2]: (0, 4)}, True),
        (6 + JUMP_MAX, {PARTITIONS[2]: (0, 4)}, False),
        (6, {}, False),
        (1_005, {}, False),
        (1_005, {PARTITIONS[0]: (9, 12)}, False),
        (6, {PARTITIONS[0]: (3, 4)}, False),
        (6, {PARTITIONS[0]: (10, 12), PARTITIONS[1]: (7, 7)}, False),
        (6, {PARTITIONS[0]: (12, 10)}, False),
        (6, {PARTITIONS[2]: (1, 0)}, False),
    ],
)
def test_window_follows_by_its_number_and_offsets(
    number: int, offsets: dict[str, tuple[int, int]], follows: bool
) -> None:
    """It covers records, behind all that its epoch covered; a partition of which nothing is known says little."""
    mark = HighWater()
    mark.raise_to(msgspec.structs.replace(window(4), offsets={PARTITIONS[1]: (0, 7)}))
    mark.raise_to(msgspec.structs.replace(window(5), offsets={PARTITIONS[0]: (0, 9)}))
    assert mark.follows(msgspec.structs.replace(window(number), offsets=offsets)) is follows


def test_first_window_of_an_epoch_follows_if_it_covers_records() -> None:
    """Offsets begin again with a topic that was made again, and so does the epoch."""
    mark = HighWater()
    mark.raise_to(window(500))
    assert mark.follows(window(0, "f"))
    assert mark.follows(window(10**9, "f"))
    assert not mark.follows(msgspec.structs.replace(window(0, "f"), offsets={}))


def test_foreign_window_with_a_near_number_silences_no_window(bus: Bus, make_topic: Topic) -> None:
    """It covers no records, or those of windows before it, and is skipped."""
    source, output = make_topic(), make_topic()
    near = msgspec.structs.replace(window(1_001), offsets={})
    old = msgspec.structs.replace(window(1_002), offsets=window(1).offsets)
    send(bus, source, window(0), window(1), near, old, window(2), window(3))
    stage = forwarder(bus, source, output)
    stage.step(bus.tail(source, 100))
    assert [each.window for each in received(bus, output)] == [0, 1, 2, 3]
    assert stage.meters._by_reason["implausible"]._value.get() == 2


def test_windows_are_keyed_by_epoch(bus: Bus, make_topic: Topic) -> None:
    """So the windows of an epoch stay on one partition."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0), window(0, "f"))
    forwarder(bus, source, output).step(bus.tail(source, 100))
    assert [record.key for record in bus.tail(output, 100)] == [b"e", b"f"]


@pytest.mark.parametrize("nonsense", [None, b"", b"{}", b'{"epoch":"e"}', b"\xff", b"[" * 100_000])
def test_unreadable_record_is_skipped_and_logged(
    bus: Bus, make_topic: Topic, nonsense: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The windows before and after it are forwarded; the log names topic, offset and reason."""
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(records.log, "error", lambda event, **fields: lines.append(fields))
    source, output = make_topic(), make_topic()
    send(bus, source, window(0), nonsense, window(1))
    assert forwarder(bus, source, output).step(bus.tail(source, 100)) == 2
    assert ids(received(bus, output)) == ["e:0", "e:1"]
    assert [(line["topic"], line["offset"]) for line in lines] == [(source, 1)]
    assert lines[0]["reason"]


def test_restart_ignores_unreadable_records_in_output(bus: Bus, make_topic: Topic) -> None:
    """Records of foreign writers in the output do not change where the input continues."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0), window(1))
    forwarder(bus, source, output).step(bus.tail(source, 100)[:1])
    send(bus, output, b"nonsense", None, window(9, "elsewhere"))
    restarted = forwarder(bus, source, output)
    assert restarted.resume() == {0: 1}
    assert restarted.step(bus.tail(source, 100)) == 1


@pytest.mark.parametrize(
    "foreign",
    [[b"nonsense"] * 300, [encode(window(number, "foreign")) for number in range(300)]],
    ids=["junk", "windows"],
)
def test_restart_finds_its_windows_behind_any_number_of_others(
    bus: Bus, make_topic: Topic, foreign: list[bytes]
) -> None:
    """Records of foreign writers at the end of the output hide nothing, so no window is written twice."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0, "old"), *(window(number) for number in range(5)))
    forwarder(bus, source, output).step(bus.tail(source, 100))
    send(bus, output, *foreign)
    restarted = forwarder(bus, source, output)
    assert restarted.resume() == {0: 6}
    assert restarted.step(bus.tail(source, 100)) == 0


def test_input_that_was_made_again_is_read_from_its_start(bus: Bus, make_topic: Topic) -> None:
    """Its windows come after those that the output has, though their offsets are lower; none is written twice."""
    before, again, output = make_topic(), make_topic(), make_topic()
    send(bus, before, window(0, "a"), *(window(number, "b") for number in range(TAIL + 20)))
    forwarder(bus, before, output).step(bus.tail(before, 1_000))
    send(bus, again, window(0, "a"), window(TAIL + 19, "b"), window(TAIL + 20, "b"), window(0, "c"))
    restarted = forwarder(bus, again, output)
    assert restarted.resume() == {0: 0}
    assert restarted.step(bus.tail(again, 100)) == 2
    assert ids(received(bus, output))[-2:] == [f"b:{TAIL + 20}", "c:0"]


def test_foreign_hop_in_the_output_skips_and_repeats_nothing(bus: Bus, make_topic: Topic) -> None:
    """A hop that names this stage, and an offset that the input does not have: all that the output has is known."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0, "a"), *(window(number, "b") for number in range(TAIL + 20)))
    forwarder(bus, source, output).step(bus.tail(source, 1_000))
    send(bus, output, window(7, "foreign", hops=(Hop("stage", 2**62, 1, 2),)))
    send(bus, source, window(TAIL + 20, "b"))
    restarted = forwarder(bus, source, output)
    assert restarted.step(bus.read(source, restarted.resume())) == 1
    assert ids(received(bus, output))[-1] == f"b:{TAIL + 20}"


@pytest.mark.parametrize(
    ("place", "hops"),
    [(0, ()), (0, (Hop("elsewhere", 1, 1, 1),)), (1, ()), (1, (Hop("stage", 1, 1, 1),))],
)
def test_foreign_window_in_an_output_silences_no_epoch_after_a_restart(
    bus: Bus, make_topic: Topic, place: int, hops: tuple[Hop, ...]
) -> None:
    """Its great number is not the mark; one that seems to be this stage's has to follow the window before it."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0), window(1), window(2))
    far = msgspec.structs.replace(window(2**62, hops=hops), offsets={})
    if place == 0:
        send(bus, output, far)
    forwarder(bus, source, output).step(bus.tail(source, 100)[:2])
    if place == 1:
        send(bus, output, far)
    restarted = forwarder(bus, source, output)
    assert restarted.resume() == {0: 2}
    assert restarted.step(bus.tail(source, 100)) == 1
    assert ids(received(bus, output))[-1] == "e:2"


@pytest.mark.parametrize("after", range(7))
def test_restart_continues_where_its_outputs_end(bus: Bus, make_topic: Topic, after: int) -> None:
    """After a crash at any moment, also between two outputs, every window is forwarded exactly once."""
    source, left, right = make_topic(), make_topic(), make_topic()
    send(bus, source, window(0), b"nonsense", window(1), window(0, "f"))
    crashing = CrashingBus(bus, after)
    first = Forwarder("stage", bus, source, crashing, {left: for_clusters, right: for_clusters})  # type: ignore[arg-type]
    if after < 6:
        with pytest.raises(CrashError):
            first.step(bus.tail(source, 100))
    else:
        first.step(bus.tail(source, 100))
    crashing.close()
    # A restart continues after the last window that both outputs have.
    assert forwarder(bus, source, left, right).resume() == {0: [0, 0, 1, 1, 3, 3, 4][after]}
    restarted = forwarder(bus, source, left, right)
    with closing(bus.reader(source, restarted.resume())) as reader:
        remaining = bus.ends(source)[0] - restarted.resume()[0]
        while remaining:
            batch = reader.poll(DEADLINE_S)
            assert batch
            remaining -= len(batch)
            restarted.step(batch)
    assert ids(received(bus, left)) == ids(received(bus, right)) == ["e:0", "e:1", "f:0"]


def test_windows_before_start_are_not_forwarded(bus: Bus, make_topic: Topic) -> None:
    """Also if the output is empty or ends earlier; an output that is further moves the position on."""
    source, output = make_topic(), make_topic()
    send(bus, source, *(window(number) for number in range(5)))
    late = Forwarder("stage", bus, source, bus, {output: for_clusters}, start=2)
    assert late.resume() == {0: 2}
    late.step(bus.tail(source, 100)[2:3])
    assert Forwarder("stage", bus, source, bus, {output: for_clusters}, start=2).resume() == {0: 3}
    assert Forwarder("stage", bus, source, bus, {output: for_clusters}, start=4).resume() == {0: 4}


def test_failed_flush_raises_and_window_is_forwarded_later(
    bus: Bus, make_topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage gets the error; the next attempt forwards the same window."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0))
    stage = forwarder(bus, source, output)
    stage.step([])
    real = stage._writer
    with closing(real):

        class Refusing:
            def send(self, *_: object, **__: object) -> None:
                """Accept the record."""

            def flush(self) -> None:
                """Fail as if Kafka were down."""
                raise KafkaUnreachableError("away")

        monkeypatch.setattr(stage, "_writer", Refusing())
        with pytest.raises(KafkaUnreachableError):
            stage.step(bus.tail(source, 100))
        monkeypatch.setattr(stage, "_writer", real)
        assert stage.step(bus.tail(source, 100)) == 1
    assert ids(received(bus, output)) == ["e:0"]


def test_run_forwards_until_stop_is_set(bus: Bus, make_topic: Topic) -> None:
    """Existing and new windows are forwarded; after the stop the thread ends without an error."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0))
    stop, failures = threading.Event(), []
    stage = forwarder(bus, source, output)

    def run() -> None:
        try:
            stage.run(stop)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with closing(bus.reader(output)) as reader:
            seen: list[Record] = []
            for number in (0, 1):
                while len(seen) <= number:
                    batch = reader.poll(DEADLINE_S)
                    assert batch
                    seen += batch
                send(bus, source, window(number + 1))
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert failures == []
    assert ids([decode_window(record.value) for record in seen])[:2] == ["e:0", "e:1"]


def test_main_publisher_removes_the_state_of_the_job() -> None:
    """A cluster's window has no remainders and no times of records; all other fields are unchanged."""
    carrying = msgspec.structs.replace(window(1), carried={"😂": 2}, appended_ms={"emoji-events-0": 3})
    assert b"carried" in encode(carrying)
    assert b"appended_ms" in encode(carrying)
    assert encode(for_clusters(carrying)) == encode(window(1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"appended_ms": msgspec.UNSET}, "name different partitions"),
        ({"appended_ms": {}}, "name different partitions"),
        ({"appended_ms": {"emoji-events-1": 3}}, "name different partitions"),
        ({"reactions": [TypeCount("<img src=x>", 1, 1)]}, "it counts '<img src=x>', no emoji"),
        ({"reactions": [TypeCount("😂", 1, 1), TypeCount("❤", 1, 1)]}, "it counts '❤', no emoji"),
        ({"reactions": [TypeCount("x" * 800_000, 1, 1)]}, f"it counts '{'x' * 64}', no emoji"),
    ],
)
def test_main_publisher_forwards_windows_of_the_job_only(changes: dict[str, object], reason: str) -> None:
    """Another program's window has no times of its records, or counts something that is no emoji."""
    own = msgspec.structs.replace(window(1), appended_ms={"emoji-events-0": 3})
    assert decode_emitted(encode(own)) == own
    with pytest.raises(MessageError, match=f"not a window of the Spark job: .*{reason}"):
        decode_emitted(encode(msgspec.structs.replace(own, **changes)))


def test_forwarder_that_hangs_is_seen() -> None:
    """Its health comes from another thread, and says how long its loop has not come round."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("in"), TopicSpec("out"))
    held, go_on, stop = threading.Event(), threading.Event(), threading.Event()

    def hang(seen: Window) -> Window:
        held.set()
        go_on.wait(DEADLINE_S)
        return seen

    one = Forwarder("stage", bus, "in", bus, {"out": hang})
    assert one.health() == {"status": "starting", "stage": "stage", "stalled_s": 0.0}
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    send(bus, "in", window(0))
    try:
        assert held.wait(DEADLINE_S)
        until(lambda: cast(float, one.health()["stalled_s"]) > 0.5, "the forwarder does not come round")
    finally:
        go_on.set()
        stop.set()
        thread.join(DEADLINE_S)
    assert one.health()["stalled_s"] == 0.0
