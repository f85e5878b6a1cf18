"""Forwarding: every window once to every output, also over a crash, and each hop written down."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import closing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import forwarding
from pipeline.bus.base import Bus, Record
from pipeline.cluster_publisher import cluster_view
from pipeline.errors import KafkaUnreachableError
from pipeline.forwarding import Forwarder
from pipeline.main_publisher import for_clusters
from pipeline.messages import HighWater, Hop, TypeCount, Window, decode_window, encode

DEADLINE_S = 20.0
Topic = Callable[..., str]


def window(number: int, epoch: str = "e", hops: tuple[Hop, ...] = ()) -> Window:
    """Return a small window."""
    cells = [TypeCount("😂", 12, 2), TypeCount("❤️", 3, 1)]
    return Window(epoch, number, 1, 2, {"emoji-events-0": (number, number)}, 15, cells, hops=hops)


def send(bus: Bus, topic: str, *records: Window | bytes | None) -> None:
    """Append windows, or what is none."""
    with closing(bus.writer()) as writer:
        for record in records:
            writer.send(topic, encode(record) if isinstance(record, Window) else record, key=b"k")
        writer.flush()


def received(bus: Bus, topic: str) -> list[Window]:
    """Return every window on a topic."""
    return [decode_window(record.value) for record in bus.tail(topic, 10_000)]


def ids(windows: list[Window]) -> list[str]:
    """Return the windows' ids in order."""
    return [each.event_id for each in windows]


def forwarder(bus: Bus, source: str, *outputs: str, clock_ns: Callable[[], int] | None = None) -> Forwarder:
    """Return a forwarder with the view of the main publisher for each output."""
    ticks = itertools.count(1_000)
    return Forwarder("stage", bus, source, bus, dict.fromkeys(outputs, for_clusters), clock_ns or (lambda: next(ticks)))


class CrashError(Exception):
    """The process dies here."""


class CrashingBus:
    """A bus whose writer dies after so many records, each of which is in the log."""

    def __init__(self, bus: Bus, after: int) -> None:
        self._bus = bus
        self._left = after

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    def writer(self) -> CrashingBus:
        """Be the writer as well."""
        self._writer = self._bus.writer()
        return self

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Append at once, or die."""
        if not self._left:
            raise CrashError
        self._left -= 1
        self._writer.send(topic, value, key=key)
        self._writer.flush()

    def flush(self, timeout_s: float = 10.0) -> None:
        """All is in the log already."""

    def close(self) -> None:
        """Give the real one back."""
        self._writer.close()


@given(seen=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20)), max_size=40))
def test_a_window_is_new_once(seen: list[tuple[str, int]]) -> None:
    """A window is new exactly when it lies above everything seen in its epoch; epochs know nothing of each other."""
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
def test_a_clusters_view_shortens_the_list_and_never_the_total(
    cells: list[TypeCount], top_n: int, cluster: str
) -> None:
    """The most frequent types stay, in order, unaltered; total, offsets and identity are the whole crowd's."""
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


def test_every_window_goes_once_to_every_output(bus: Bus, make_topic: Topic) -> None:
    """Each output gets every window in order; what is repeated, older or already forwarded is dropped."""
    source, one, two = make_topic(), make_topic(), make_topic()
    send(bus, source, window(0), window(1), window(1), window(0), window(0, "f"), window(2), window(0, "f"))
    stage = forwarder(bus, source, one, two)
    assert stage.step(bus.tail(source, 100)) == 8
    assert stage.step(bus.tail(source, 100)) == 0
    assert ids(received(bus, one)) == ids(received(bus, two)) == ["e:0", "e:1", "f:0", "e:2"]


def test_a_hop_is_added_behind_those_before(bus: Bus, make_topic: Topic) -> None:
    """The hop has the stage's name, the offset it read and both its times; nothing else of the window changes."""
    source, output = make_topic(), make_topic()
    before = Hop("before", 7, 10, 11)
    send(bus, source, b"nonsense", window(4, hops=(before,)))
    forwarder(bus, source, output, clock_ns=iter(range(100, 200)).__next__).step(bus.tail(source, 100))
    (seen,) = received(bus, output)
    hop = seen.hops[-1]
    assert seen == window(4, hops=(before, hop))
    assert (hop.stage, hop.offset) == ("stage", 1)
    assert 100 < hop.received_ns < hop.sent_ns


def test_windows_of_an_epoch_stay_on_one_partition(bus: Bus, make_topic: Topic) -> None:
    """They are keyed by their epoch."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0), window(0, "f"))
    forwarder(bus, source, output).step(bus.tail(source, 100))
    assert [record.key for record in bus.tail(output, 100)] == [b"e", b"f"]


@pytest.mark.parametrize("nonsense", [None, b"", b"{}", b'{"epoch":"e"}', b"\xff", b"[" * 100_000])
def test_what_is_no_window_is_skipped_and_logged(
    bus: Bus, make_topic: Topic, nonsense: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign record stops nothing: the windows around it arrive, and the log names topic, offset and reason."""
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(forwarding.log, "error", lambda event, **fields: lines.append(fields))
    source, output = make_topic(), make_topic()
    send(bus, source, window(0), nonsense, window(1))
    assert forwarder(bus, source, output).step(bus.tail(source, 100)) == 2
    assert ids(received(bus, output)) == ["e:0", "e:1"]
    assert [(line["topic"], line["offset"]) for line in lines] == [(source, 1)]
    assert lines[0]["reason"]


def test_nonsense_in_an_output_does_not_confuse_a_restart(bus: Bus, make_topic: Topic) -> None:
    """What others left in the output is passed over, and the place is found all the same."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0), window(1))
    forwarder(bus, source, output).step(bus.tail(source, 100)[:1])
    send(bus, output, b"nonsense", None, window(9, "elsewhere"))
    restarted = forwarder(bus, source, output)
    assert restarted.resume() == {0: 1}
    assert restarted.step(bus.tail(source, 100)) == 1


@pytest.mark.parametrize("after", range(7))
def test_a_restart_goes_on_where_its_outputs_end(bus: Bus, make_topic: Topic, after: int) -> None:
    """Whenever it died, also between two outputs, a restart forwards what is missing and nothing twice."""
    source, one, two = make_topic(), make_topic(), make_topic()
    send(bus, source, window(0), b"nonsense", window(1), window(0, "f"))
    crashing = CrashingBus(bus, after)
    first = Forwarder("stage", bus, source, crashing, {one: for_clusters, two: for_clusters})  # type: ignore[arg-type]
    if after < 6:
        with pytest.raises(CrashError):
            first.step(bus.tail(source, 100))
    else:
        first.step(bus.tail(source, 100))
    crashing.close()
    # Where a restart goes on reading: after the last window that both outputs have.
    assert forwarder(bus, source, one, two).resume() == {0: [0, 0, 1, 1, 3, 3, 4][after]}
    restarted = forwarder(bus, source, one, two)
    with closing(bus.reader(source, restarted.resume())) as reader:
        left = bus.ends(source)[0] - restarted.resume()[0]
        while left:
            records = reader.poll(DEADLINE_S)
            assert records
            left -= len(records)
            restarted.step(records)
    assert ids(received(bus, one)) == ids(received(bus, two)) == ["e:0", "e:1", "f:0"]


def test_nothing_before_its_start_is_forwarded(bus: Bus, make_topic: Topic) -> None:
    """Neither to an output that is empty nor to one that ends before; what it has already moves the place on."""
    source, output = make_topic(), make_topic()
    send(bus, source, *(window(number) for number in range(5)))
    late = Forwarder("stage", bus, source, bus, {output: for_clusters}, start=2)
    assert late.resume() == {0: 2}
    late.step(bus.tail(source, 100)[2:3])
    assert Forwarder("stage", bus, source, bus, {output: for_clusters}, start=2).resume() == {0: 3}
    assert Forwarder("stage", bus, source, bus, {output: for_clusters}, start=4).resume() == {0: 4}


def test_a_window_kafka_did_not_take_is_not_counted_as_forwarded(
    bus: Bus, make_topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the flush fails the stage hears of it, and the same window is forwarded when it is tried again."""
    source, output = make_topic(), make_topic()
    send(bus, source, window(0))
    stage = forwarder(bus, source, output)
    stage.step([])
    real = stage._writer
    with closing(real):

        class Refusing:
            def send(self, *_: object, **__: object) -> None:
                """Take it."""

            def flush(self) -> None:
                """And lose it."""
                raise KafkaUnreachableError("away")

        monkeypatch.setattr(stage, "_writer", Refusing())
        with pytest.raises(KafkaUnreachableError):
            stage.step(bus.tail(source, 100))
        monkeypatch.setattr(stage, "_writer", real)
        assert stage.step(bus.tail(source, 100)) == 1
    assert ids(received(bus, output)) == ["e:0"]


def test_it_runs_until_it_is_told_to_stop(bus: Bus, make_topic: Topic) -> None:
    """What is there and what comes is forwarded; after the stop both connections are given back."""
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
                    records = reader.poll(DEADLINE_S)
                    assert records
                    seen += records
                send(bus, source, window(number + 1))
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert failures == []
    assert ids([decode_window(record.value) for record in seen])[:2] == ["e:0", "e:1"]


def test_the_main_publisher_keeps_the_jobs_memory_back() -> None:
    """Remainders are not for clients: a cluster's window says nothing of them, and all else is as it was."""
    carrying = msgspec.structs.replace(window(1), carried={"😂": 2})
    assert b"carried" in encode(carrying)
    assert encode(for_clusters(carrying)) == encode(window(1))
