"""The twin's windows: made as Spark's job makes them, and changed as told."""

from __future__ import annotations

from experiments.twin.batches import aggregated, changed
from experiments.twin.truth import Reaction
from pipeline.messages import TypeCount, Window
from spark.window import window


def reaction(emoji, partition, offset):
    """One record in the topic."""
    return Reaction("fan", 1, emoji, "", 1, partition=partition, offset=offset)


def test_cut_has_the_offsets_and_counts_of_its_records():
    """Per partition the first and the last offset, per type the count."""
    cut = [reaction("😂", 0, 7), reaction("🔥", 1, 3), reaction("😂", 1, 4), reaction("😂", 0, 8)]
    made = window(
        aggregated(cut),
        topic="emoji-events",
        epoch="e",
        number=0,
        trigger_ns=1,
        emitted_ns=2,
        group_size=10,
        policy="ceil",
    )
    assert made is not None
    assert made.offsets == {"emoji-events-0": (7, 8), "emoji-events-1": (3, 4)}
    assert [(cell.emoji_type, cell.count) for cell in made.reactions] == [("😂", 3), ("🔥", 1)]


def test_changed_counts_keep_or_change_the_total():
    """Moved: the same total, another mix. Added: another total."""
    made = Window("e", 0, 1, 2, {}, 8, [TypeCount("😂", 5, 1), TypeCount("🔥", 3, 1)])
    moved, added = changed(made, moved=4), changed(made, added=2)
    assert [cell.count for cell in moved.reactions] == [1, 7]
    assert moved.total == sum(cell.count for cell in moved.reactions) == 8
    assert [cell.count for cell in added.reactions] == [7, 3]
    assert added.total == 10
    assert changed(made) is made
