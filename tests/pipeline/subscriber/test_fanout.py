"""The fan-out core: the windows of each stream, cutting off, and resuming."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MessageError
from pipeline.messages import Window, encode
from pipeline.sse import SseParser
from pipeline.subscriber.fanout import FRAMED, Fanout, Stream
from pipeline.subscriber.frames import EARLIEST, OLDEST, EventId, Missed, Wire, parse_event_id, reset_event
from tests.harness.stages.doubles import MemoryStreamSink as Sink


def window(number: int, epoch: str = "e") -> Window:
    """Return a small window."""
    return Window(epoch, number, 0, 0, {}, 0, [])


def publish(fanout: Fanout, *numbers: int, epoch: str = "e") -> None:
    """Publish windows by number."""
    for number in numbers:
        fanout.publish(window(number, epoch))


def joined(fanout: Fanout, name: str, position: int | None = None, room: int = 1_000_000) -> tuple[Stream, Sink]:
    """Join a stream from `position`, or from the next window on."""
    sink = Sink(room)
    stream = Stream(name, sink)
    fanout.join(stream, fanout.head if position is None else position)
    return stream, sink


def test_streams_get_the_same_bytes_from_when_they_joined() -> None:
    """One encoding serves all streams, and no stream gets windows from before it joined."""
    fanout = Fanout(10, 10)
    publish(fanout, 1)
    sinks = [joined(fanout, name)[1] for name in "ab"]
    publish(fanout, 2, 3)
    assert [sink.windows() for sink in sinks] == [[2, 3], [2, 3]]
    assert all(a is b for a, b in zip(sinks[0].sent, sinks[1].sent, strict=True))


def test_chunk_holds_the_plain_bytes() -> None:
    """The HTTP/1.1 form holds exactly the HTTP/1.0 form."""
    fanout = Fanout(10, 10)
    _, sink = joined(fanout, "a")
    publish(fanout, 1)
    plain, chunk = sink.sent[0][:2]
    assert chunk == f"{len(plain):x}\r\n".encode() + plain + b"\r\n"


def test_full_sink_blocks_only_its_own_stream() -> None:
    """The windows that a slow client cannot take wait for it, in order; other streams continue."""
    fanout = Fanout(10, 5)
    slow, slow_sink = joined(fanout, "slow", room=1)
    _, quick = joined(fanout, "quick")
    publish(fanout, 1, 2, 3)
    assert (slow_sink.windows(), quick.windows()) == ([1], [1, 2, 3])
    slow_sink.room = 1
    fanout.catch_up(slow)
    slow_sink.room = 9
    fanout.catch_up(slow)
    publish(fanout, 4)
    assert slow_sink.windows() == quick.windows() == [1, 2, 3, 4]


def test_stream_beyond_queue_max_is_cut_off() -> None:
    """With queue_max windows waiting it stays; with one more it alone is aborted, counted and forgotten."""
    fanout = Fanout(10, 3)
    stream, sink = joined(fanout, "slow", room=0)
    _, quick = joined(fanout, "quick")
    publish(fanout, 1, 2, 3)
    assert stream.ended is None
    publish(fanout, 4)
    assert (stream.ended, sink.aborted, fanout.cut["slow"], len(fanout)) == ("slow", True, 1, 1)
    assert quick.windows() == [1, 2, 3, 4]


def test_stuck_stream_is_cut_off() -> None:
    """Bytes that nobody takes for too long end that stream alone, counted by its reason."""
    fanout = Fanout(10, 10)
    (stream, sink), (other, _) = joined(fanout, "stuck"), joined(fanout, "other")
    sink.stuck = 31.0
    fanout.sweep_idle(0.0, 30.0)
    assert (stream.ended, sink.aborted, fanout.cut) == ("stuck", True, {"stuck": 1})
    assert (other.ended, len(fanout)) == (None, 1)


def test_long_replay_is_not_cut_off() -> None:
    """Only windows published since a stream joined count against it."""
    fanout = Fanout(100, 3)
    publish(fanout, *range(50))
    stream, sink = joined(fanout, "a", position=0, room=5)
    publish(fanout, 50, 51, 52)
    assert stream.ended is None
    sink.room = 100
    fanout.catch_up(stream)
    assert sink.windows() == list(range(53))


def test_replay_overtaken_by_the_ring_is_cut_off() -> None:
    """A window that is no longer kept cannot be sent, and a gap must not be silent."""
    fanout = Fanout(4, 4)
    publish(fanout, 1, 2, 3, 4)
    stream, sink = joined(fanout, "a", position=0, room=1)
    publish(fanout, 5, 6)
    assert (stream.ended, sink.aborted, sink.windows()) == ("slow", True, [1])


def test_newest_connection_of_a_client_replaces_the_previous_one() -> None:
    """The old stream ends, and its late `leave` does not remove the new one."""
    fanout = Fanout(10, 10)
    old, old_sink = joined(fanout, "a")
    _, new_sink = joined(fanout, "a")
    fanout.leave(old)
    publish(fanout, 1)
    assert old.ended == "replaced"
    assert (old_sink.windows(), new_sink.windows()) == ([], [1])


def test_end_all_aborts_only_full_sinks() -> None:
    """A client that reads gets a clean end, a frozen one a reset."""
    fanout = Fanout(10, 10)
    quick, quick_sink = joined(fanout, "quick")
    frozen, frozen_sink = joined(fanout, "frozen", room=0)
    fanout.end_all("shutdown")
    assert (quick.ended, frozen.ended) == ("shutdown", "shutdown")
    assert (quick_sink.aborted, frozen_sink.aborted) == (False, True)
    assert len(fanout) == 0


def test_round_of_heartbeats_reaches_each_stream_once() -> None:
    """The slots partition the streams; a full sink is skipped."""
    fanout = Fanout(10, 10)
    sinks = [joined(fanout, str(n), room=0 if n == 3 else 9)[1] for n in range(10)]
    for slot in range(4):
        fanout.heartbeat(Wire(b"x", b"x", b"x"), slot, 4)
    assert [len(sink.sent) for sink in sinks] == [0 if n == 3 else 1 for n in range(10)]


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 30))
def test_resuming_gives_exactly_the_missed_windows(published: int, ring: int, last: int) -> None:
    """After window `last`: all later ones in order, once; if one of them is no longer kept, no replay."""
    fanout = Fanout(ring, 1)
    publish(fanout, *range(published))
    position = fanout.position_after(EventId("e", last))
    if last >= published:
        assert isinstance(position, Missed)
        assert not position.final
    elif last + 1 < published - ring:
        assert isinstance(position, Missed)
        assert position.final
    else:
        assert not isinstance(position, Missed)
        assert joined(fanout, "a", position)[1].windows() == list(range(last + 1, published))


def test_replayed_window_has_the_bytes_that_live_streams_got() -> None:
    """The newest are kept as they were sent, older ones are framed again."""
    fanout = Fanout(100, 1)
    _, live = joined(fanout, "live")
    publish(fanout, *range(3 * FRAMED))
    _, late = joined(fanout, "late", 0)
    assert late.sent == live.sent
    assert late.sent[-1] is live.sent[-1]


@given(st.integers(1, 400), st.integers(1, 30), st.lists(st.integers(0, 200), min_size=1, max_size=40))
def test_ring_is_bounded_in_bytes(most: int, ring: int, sizes: list[int]) -> None:
    """It holds the newest windows that fit into the bound, one at least; what it holds is replayed."""
    fanout = Fanout(ring, 1, ring_max_bytes=most)
    for number, size in enumerate(sizes):
        fanout.publish(msgspec.structs.replace(window(number), cluster="x" * size))
    held = [len(encode(msgspec.structs.replace(window(n), cluster="x" * size))) for n, size in enumerate(sizes)]
    kept = fanout.kept
    assert 1 <= kept <= ring
    assert sum(held[-kept:]) <= most or kept == 1
    assert kept == min(ring, len(sizes)) or sum(held[-kept - 1 :]) > most
    assert joined(fanout, "a", fanout.head - kept)[1].windows() == list(range(len(sizes)))[-kept:]


def test_earliest_replays_from_the_first_window_while_it_is_kept() -> None:
    """It replays from the first window if the ring has it; never on a core that did not see the feed's first."""
    fanout = Fanout(3, 1)
    assert fanout.position_after(EARLIEST) == 0
    publish(fanout, 5, 6, 7)
    assert joined(fanout, "a", 0)[1].windows() == [5, 6, 7]
    assert fanout.position_after(EARLIEST) == 0
    publish(fanout, 8)
    late = Fanout(3, 1)
    late.has_earliest = False
    publish(late, 5)
    for gone in (fanout.position_after(EARLIEST), late.position_after(EARLIEST)):
        assert isinstance(gone, Missed)
        assert gone.final


def test_kept_replays_all_that_the_ring_has_and_never_misses() -> None:
    """A client that wants the past need not know where it begins, however little of it is left."""
    fanout = Fanout(3, 1)
    fanout.has_earliest = False
    assert fanout.position_after(OLDEST) == 0
    publish(fanout, 5, 6, 7, 8, epoch="old")
    publish(fanout, 0, epoch="new")
    position = fanout.position_after(OLDEST)
    assert isinstance(position, int)
    assert joined(fanout, "a", position)[1].windows() == [7, 8, 0]


def test_resuming_crosses_from_one_epoch_to_the_next() -> None:
    """A new query's windows follow the last one of the old query."""
    fanout = Fanout(10, 1)
    publish(fanout, 7, 8, epoch="old")
    publish(fanout, 0, 1, epoch="new")
    for last, missed in (
        (EventId("old", 7), [8, 0, 1]),
        (EventId("old", 8), [0, 1]),
        (EventId("new", 0), [1]),
    ):
        position = fanout.position_after(last)
        assert not isinstance(position, Missed)
        assert joined(fanout, str(last), position)[1].windows() == missed


def test_id_ahead_of_this_subscriber_is_waited_for() -> None:
    """A client that got a window elsewhere sooner gets neither a reset nor that window twice."""

    async def scenario() -> int | Missed:
        fanout = Fanout(10, 1)
        publish(fanout, 1)
        resolving = asyncio.create_task(fanout.resolve(EventId("e", 2), 60))
        await asyncio.sleep(0)
        publish(fanout, 2, 3)
        return await resolving

    assert asyncio.run(scenario()) == 2


@pytest.mark.parametrize("last", [EventId("e", 9), EventId("other", 1)])
def test_unknown_id_ends_in_a_reset_after_patience(last: EventId) -> None:
    """A future window and another epoch are given up when patience ends, with the reason."""
    fanout = Fanout(10, 1)
    publish(fanout, 1)
    missed = asyncio.run(fanout.resolve(last, 0.01))
    assert isinstance(missed, Missed)
    (event,) = SseParser().feed(reset_event(last, missed.reason, EventId("e", 1)).plain)
    assert (event.id, event.event) == ("e:1", "reset")
    assert missed.reason in event.data


@pytest.mark.parametrize("text", ["", "7", ":7", "e:", "e:-1", "e:1x", "e:٣", "e:" + "9" * 19, "x" * 400 + ":1"])
def test_malformed_id_raises_message_error(text: str) -> None:
    """The error names the field."""
    with pytest.raises(MessageError, match="Last-Event-ID"):
        parse_event_id(text, "Last-Event-ID")


@given(st.text(min_size=1, max_size=50), st.integers(0, 10**18 - 1))
def test_ids_round_trip(epoch: str, number: int) -> None:
    """An epoch may contain anything, colons too."""
    assert parse_event_id(str(EventId(epoch, number)), "after") == EventId(epoch, number)


def test_earliest_round_trips_and_differs_from_every_window() -> None:
    """`earliest` is an id of its own, also beside an epoch of that name."""
    assert parse_event_id("earliest", "after") == EARLIEST
    assert str(EARLIEST) == "earliest"
    assert parse_event_id("earliest:0", "after") == EventId("earliest", 0) != EARLIEST
    assert parse_event_id("kept", "after") == OLDEST != EARLIEST
    assert str(OLDEST) == "kept"
