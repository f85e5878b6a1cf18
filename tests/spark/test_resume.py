"""How the Spark job starts: with its checkpoint if that fits windows and topic, else in a new epoch behind them."""

from __future__ import annotations

import pytest

from pipeline.messages import Window
from spark.resume import Checkpoint, Start, start

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


CONTINUES = Start("", {}, {})


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
    """Offsets that were counted do not exist any more: nothing is known about the records that are there."""
    found = start(checkpoint(2), WINDOWS, FIRSTS, ends)
    assert "the topic was made again" in found.reason
    assert (found.offsets, found.lost, found.after) == ({0: 0, 1: 0}, {}, "")
