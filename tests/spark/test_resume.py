"""How the Spark job starts: with its checkpoint if that fits windows and topic, else in a new epoch behind them."""

from __future__ import annotations

import pytest
from msgspec import structs

from pipeline.messages import Window
from spark.resume import Checkpoint, Last, Start, last_counted, of_the_job, start

TOPIC = "emoji-events"


def window(number: int, *ranges: tuple[int, int], epoch: str = "e") -> Window:
    """Return a window that covers a range of each partition."""
    offsets = {f"{TOPIC}-{partition}": each for partition, each in enumerate(ranges)}
    return Window(epoch, number, 0, 0, offsets, 0, [])


# Two partitions; batch n covers ten records of each.
WINDOWS = [window(n, (10 * n, 10 * n + 9), (10 * n, 10 * n + 9)) for n in range(3)]
FIRSTS, ENDS = {0: 0, 1: 0}, {0: 45, 1: 45}


def checkpoint(newest: int, **changes: object) -> Checkpoint:
    """Return the checkpoint after batch `newest` was begun."""
    batches = {n: {0: 10 * (n + 1), 1: 10 * (n + 1)} for n in range(newest + 1)}
    return Checkpoint("e", {n: batches[n] for n in {newest, 2} & batches.keys()}, **changes)  # type: ignore[arg-type]


CONTINUES = Start("", {0: 30, 1: 30}, {})


@pytest.mark.parametrize("newest", [2, 3])
def test_checkpoint_that_fits_continues(newest: int) -> None:
    """After a clean end, or with a batch that was begun: whether its window was emitted is for the stages behind."""
    assert start(checkpoint(newest), WINDOWS, FIRSTS, ENDS) == CONTINUES


def test_first_start_begins_at_the_first_record() -> None:
    """Nothing was ever counted."""
    assert start(Checkpoint(), [], {0: 0, 1: 7}, ENDS) == Start("", {0: 0, 1: 7}, {})


def test_checkpoint_whose_windows_retention_removed_continues() -> None:
    """There is nothing that it could contradict."""
    assert start(checkpoint(2), [], {0: 30, 1: 30}, ENDS) == CONTINUES


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Checkpoint(), "there is no checkpoint"),
        (checkpoint(1), "ends with batch 1, before the last window, e:2"),
        (Checkpoint("old", {5: {0: 7, 1: 7}}), "the last window, e:2, is of another epoch"),
        (Checkpoint("e", {2: {0: 25, 1: 30}}), "batch 2 has other offsets than the last window, e:2"),
        (Checkpoint("e", {9: {0: 30, 1: 30}}), "does not know the last window, e:2"),
        (Checkpoint("e", torn="offsets/2"), "the checkpoint's offsets/2 cannot be read"),
    ],
)
def test_checkpoint_that_contradicts_the_windows_is_left(given: Checkpoint, reason: str) -> None:
    """Deleted, an older copy, another epoch's, torn: a new epoch begins behind the last window, and loses nothing."""
    found = start(given, WINDOWS, FIRSTS, ENDS)
    assert reason in found.reason
    assert (found.offsets, found.lost, found.after) == ({0: 30, 1: 30}, {}, "e:2")


def test_new_epoch_without_a_window_of_its_own_continues() -> None:
    """It was killed before it emitted one: the last window is the one behind which it began."""
    assert start(Checkpoint("f", {0: {0: 40, 1: 40}}, after="e:2"), WINDOWS, FIRSTS, ENDS) == CONTINUES
    begun = start(Checkpoint("f", after="e:2"), WINDOWS, FIRSTS, ENDS)
    assert begun == Start("", {0: 30, 1: 30}, {}, "e:2")


def test_records_that_kafka_removed_are_named() -> None:
    """The job goes on with what is there; without a checkpoint as well."""
    for given in (checkpoint(2), Checkpoint()):
        found = start(given, WINDOWS, {0: 33, 1: 0}, ENDS)
        assert found.reason
        assert (found.offsets, found.lost) == ({0: 33, 1: 30}, {0: (30, 32)})


def test_quiet_partition_is_not_taken_for_lost() -> None:
    """Its windows and its records were removed a day later; the checkpoint knows that they were counted."""
    windows = [window(2, (20, 29))]
    assert start(checkpoint(2), windows, {0: 0, 1: 30}, ENDS) == CONTINUES
    assert start(Checkpoint(), windows, {0: 0, 1: 30}, ENDS).lost == {}


@pytest.mark.parametrize("ends", [{0: 0, 1: 0}, {0: 45, 1: 12}])
def test_topic_that_was_made_again_is_counted_from_its_beginning(ends: dict[int, int]) -> None:
    """All its records were appended after those that were counted, and are counted, however many there are."""
    found = start(checkpoint(2), WINDOWS, FIRSTS, ends, {0: 0, 1: 0})
    assert "the topic was made again" in found.reason
    assert (found.offsets, found.lost, found.after) == ({0: 0, 1: 0}, {}, "")


def test_topic_that_was_made_again_after_all_windows_were_removed_is_counted() -> None:
    """Only the checkpoint knows of the old one."""
    found = start(checkpoint(2), [], FIRSTS, {0: 45, 1: 12})
    assert "the topic was made again" in found.reason
    assert (found.offsets, found.after) == ({0: 0, 1: 0}, "")


@pytest.mark.parametrize("end", [27, 31, 60])
def test_log_that_lost_its_end_is_counted_from_there(end: int) -> None:
    """Whether as many records came since or not; what was counted of it is not counted again."""
    for given in (checkpoint(2), Checkpoint()):
        found = start(given, WINDOWS, FIRSTS, {0: end, 1: 45}, {0: 27})
        assert "Kafka lost its end" in found.reason
        assert (found.offsets, found.lost) == ({0: 27, 1: 30}, {})


def test_batch_that_was_begun_and_lost_is_not_waited_for() -> None:
    """Its window was not emitted: a new epoch begins behind the last one."""
    found = start(checkpoint(3), WINDOWS, FIRSTS, {0: 35, 1: 45})
    assert "ends before the checkpoint's newest batch" in found.reason
    assert (found.offsets, found.lost, found.after) == ({0: 30, 1: 30}, {}, "e:2")


@pytest.mark.parametrize(
    ("first", "counted"),
    [(window(0, (0, 3), epoch="f"), {0: 4, 1: 0}), (window(0, (27, 35), (30, 33), epoch="f"), {0: 36, 1: 34})],
)
def test_epoch_on_other_records_goes_on(first: Window, counted: dict[int, int]) -> None:
    """After its first window it is that window that counts, not those of the records that are gone."""
    own = Checkpoint("f", {0: counted})
    others = {1: 0} if len(first.offsets) == 1 else {}
    assert start(own, [*WINDOWS, first], FIRSTS, {0: 36, 1: 35}, others) == Start("", counted, {})
    assert start(Checkpoint(), [*WINDOWS, first], FIRSTS, {0: 36, 1: 35}, others).offsets == counted


@pytest.mark.parametrize("after", ["", "e:2"])
def test_batch_of_an_epoch_without_a_window_counts_nothing(after: str) -> None:
    """It was begun, and the job ended before its window was out: another one counts these records."""
    begun = Checkpoint("f", {0: {0: 40, 1: 45}}, after=after)
    assert start(begun, WINDOWS, FIRSTS, {0: 60, 1: 45}, {0: 27}).offsets == {0: 27, 1: 30}
    assert start(begun, WINDOWS, FIRSTS, {0: 35, 1: 45}).offsets == {0: 30, 1: 30}
    removed = start(begun, WINDOWS, {0: 33, 1: 0}, ENDS)
    assert (removed.offsets, removed.lost) == ({0: 33, 1: 30}, {0: (30, 32)})


def test_checkpoint_of_a_topic_that_is_gone_says_nothing() -> None:
    """It was put back after the topic had been made again: the windows of the new topic say what is counted."""
    windows = [*WINDOWS, window(0, (0, 5), (0, 3), epoch="g")]
    found = start(checkpoint(2), windows, FIRSTS, {0: 100, 1: 100})
    assert (found.offsets, found.after) == ({0: 6, 1: 4}, "g:0")


def test_last_records_that_were_counted_have_their_times() -> None:
    """Of each partition those of the last window that names it; the latest time may be an earlier one's."""
    first = structs.replace(window(0, (0, 9), (0, 4)), appended_ms={f"{TOPIC}-0": 70, f"{TOPIC}-1": 71})
    second = structs.replace(window(1, (10, 19)), appended_ms={f"{TOPIC}-0": 60})
    assert last_counted([first, second]) == {0: Last(19, 60, 70), 1: Last(4, 71, 71)}
    assert last_counted([]) == {}


def test_windows_of_the_job_are_told_from_others() -> None:
    """The first copy of each; a window of another program says nothing, and hides none."""
    own = structs.replace(WINDOWS[0], appended_ms={f"{TOPIC}-0": 7, f"{TOPIC}-1": 7})
    again = structs.replace(own, emitted_ns=5)
    far = window(2**62, (0, 0))
    half = structs.replace(far, appended_ms={f"{TOPIC}-3": 7})
    odd = structs.replace(far, offsets={"events": (0, 0)}, appended_ms={"events": 7})
    late = structs.replace(far, appended_ms={f"{TOPIC}-0": 2**63 - 1})
    assert of_the_job([far, half, odd, late, own, again]) == [own]


def stamped(number: int, *parts: tuple[int, int, int], epoch: str = "e") -> Window:
    """Return a window with the first offset, the last offset and the last record's time of each partition."""
    stamps = {f"{TOPIC}-{partition}": at_ms for partition, (_, _, at_ms) in enumerate(parts)}
    ranges = ((first, last) for first, last, _ in parts)
    return structs.replace(window(number, *ranges, epoch=epoch), appended_ms=stamps)


OWN = [stamped(0, (0, 9, 100), (0, 4, 101)), stamped(1, (10, 19, 200), (5, 9, 205))]


@pytest.mark.parametrize(
    "foreign",
    [
        stamped(1, (0, 9, 5), epoch="x"),
        stamped(0, (0, 9, 200), epoch="x"),
        stamped(0, (20, 29, 300), (0, 4, 205), epoch="x"),
        stamped(2, (0, 9, 999)),
        structs.replace(stamped(0, epoch="x"), offsets={"other-0": (3, 4)}, appended_ms={"other-0": 5}),
    ],
)
def test_window_that_goes_back_without_later_records_is_not_the_jobs(foreign: Window) -> None:
    """At its end a new epoch would count a day again. The job's own next window is still its own."""
    own = stamped(2, (20, 29, 300), (10, 14, 301))
    assert of_the_job([*OWN, foreign]) == OWN
    assert of_the_job([*OWN, foreign, own]) == [*OWN, own]


@pytest.mark.parametrize(
    "first",
    [
        stamped(0, (20, 24, 300), (10, 10, 301), epoch="f"),
        stamped(0, (0, 3, 206), (0, 0, 206), epoch="f"),
        stamped(0, (15, 30, 300), epoch="f"),
        stamped(0, (20, 24, 150), epoch="f"),
    ],
)
def test_first_window_of_a_new_epoch_is_the_jobs(first: Window) -> None:
    """Behind the last one, or with later records at counted offsets; a clock that was set back changes nothing."""
    second = stamped(1, (first.offsets[f"{TOPIC}-0"][1] + 1, 99, 90), epoch="f")
    assert of_the_job([*OWN, first, second]) == [*OWN, first, second]


def test_window_with_a_time_to_come_hides_none_of_the_jobs() -> None:
    """Another program wrote it. The epoch that has begun goes on."""
    far = stamped(0, (900, 999, 2**50), epoch="x")
    assert of_the_job([OWN[0], far, OWN[1]]) == [OWN[0], far, OWN[1]]
