"""The checker, on histories with planted anomalies: each is found under its name, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import structs

from experiments.faults.ledger import LATER, RESET, History, Regrown, Sent, Stored, anomalies, uncovered
from pipeline.messages import TypeCount, Window


def window(number: int, offsets: dict[int, tuple[int, int]], counts: dict[str, int], repeats: int = 0) -> Window:
    """Return a window of epoch e."""
    named = {f"emoji-events-{partition}": span for partition, span in offsets.items()}
    cells = [TypeCount(kind, count, 1) for kind, count in counts.items()]
    return Window("e", number, number, number, named, sum(counts.values()), cells, repeats=repeats)


def history() -> History:
    """Ten reactions in three windows: one was sent twice, one has no answer and is there, one is not; two clients."""
    sent = [Sent(f"r{number}", "😂" if number % 2 else "🔥", "accepted") for number in range(10)]
    sent += [Sent("maybe", "😂", "unknown"), Sent("never", "😂", "unknown"), Sent("refused", "😂", "refused")]
    order = ["r0", "r1", "r2", "r3", "r1", "r4", "r5", "maybe", "r6", "r7", "r8", "r9"]
    kinds = {each.reaction_id: each.emoji_type for each in sent}
    stored = [Stored(0, place, each, kinds[each]) for place, each in enumerate(order)]
    stored.append(Stored(1, 0, None, None))
    windows = [
        window(0, {0: (0, 3), 1: (0, 0)}, {"😂": 2, "🔥": 2}),
        window(1, {0: (4, 7)}, {"😂": 2, "🔥": 1}, repeats=1),
        window(3, {0: (8, 11)}, {"😂": 2, "🔥": 2}),
    ]
    return History(sent, stored, [*windows[:2], windows[1], windows[2]], {"a": windows, "b": windows[1:]})


def found(changed: History) -> set[tuple[str, str]]:
    """Return kind and subject of each anomaly."""
    return {(each.kind, each.what) for each in anomalies(changed)}


def test_clean_history_has_no_anomaly() -> None:
    """Nor has one whose client joined late, or missed windows of which it was told."""
    made = history()
    assert anomalies(made) == []
    first, _, last = made.received["a"]
    assert anomalies(replace(made, received={"a": [first, RESET, last]})) == []
    assert uncovered(made.stored, made.forwarded()) == []
    assert [each.offset for each in uncovered(made.stored, made.forwarded()[:2])] == [8, 9, 10, 11]


def without(place: int) -> Callable[[History], History]:
    """Remove a record; its window says what it said."""
    return lambda made: replace(made, stored=[*made.stored[:place], *made.stored[place + 1 :]])


def told(reaction_id: str, answer: str) -> Callable[[History], History]:
    """Change an answer."""
    return lambda made: replace(
        made, sent=[each._replace(told=answer) if each.reaction_id == reaction_id else each for each in made.sent]
    )


def counting(number: int, **changes: object) -> Callable[[History], History]:
    """Change an emitted window, and what clients received of it."""

    def change(made: History) -> History:
        def one(each: Window) -> Window:
            return structs.replace(each, **changes) if each.window == number else each

        received = {client: [one(each) for each in windows] for client, windows in made.received.items()}
        return replace(made, emitted=[one(each) for each in made.emitted], received=received)

    return change


def receiving(*order: int, **changes: object) -> Callable[[History], History]:
    """Let client a receive the windows in this order; the last one changed."""

    def change(made: History) -> History:
        windows = [made.received["a"][place] for place in order]
        windows[-1] = structs.replace(windows[-1], **changes)
        return replace(made, received={"a": windows})

    return change


def added(*records: Stored) -> Callable[[History], History]:
    """Add records."""
    return lambda made: replace(made, stored=[*made.stored, *records])


AGAIN = structs.replace(window(0, {0: (11, 11)}, {}), epoch="f")
PLANTED = {
    "a record is gone": (without(5), {("lost", "r4"), ("phantom", "e:1")}),
    "a record is in no window": (
        lambda made: replace(
            added(Stored(0, 12, "late", "😂"))(made), sent=[*made.sent, Sent("late", "😂", "accepted")]
        ),
        {("lost", "late")},
    ),
    "an answer was 202, and nothing came": (told("never", "accepted"), {("lost", "never")}),
    "an answer was a refusal, and it counts": (told("maybe", "refused"), {("phantom", "maybe")}),
    "a stranger's record": (added(Stored(1, 1, None, "😂")), {("phantom", "the record at 1:1")}),
    "a repeat counted": (
        counting(1, reactions=[TypeCount("😂", 3, 1), TypeCount("🔥", 1, 1)], total=4, repeats=0),
        {("phantom", "e:1")},
    ),
    "a count too low": (
        counting(3, reactions=[TypeCount("😂", 2, 1), TypeCount("🔥", 1, 1)], total=3),
        {("lost", "e:3")},
    ),
    "a total that is not the sum": (counting(3, total=5), {("altered", "e:3")}),
    "counts moved": (
        counting(3, reactions=[TypeCount("😂", 3, 1), TypeCount("🔥", 1, 1)]),
        {("lost", "e:3"), ("phantom", "e:3")},
    ),
    "another emoji": (
        lambda made: replace(made, sent=[Sent("r0", "😂", "accepted"), *made.sent[1:]]),
        {("altered", "r0")},
    ),
    "windows of two epochs cover a record": (
        lambda made: replace(
            made,
            emitted=[*made.emitted, AGAIN],
            received={"a": [*made.received["a"], AGAIN]},
        ),
        {("duplicate", "r9")},
    ),
    "a window received twice": (receiving(0, 1, 1, 2), {("duplicate", "e:1 at a")}),
    "a window skipped": (receiving(0, 2), {("unseen", "e:1 at a")}),
    "the last window missing": (receiving(0, 1), {("unseen", "e:3 at a")}),
    "windows out of order": (receiving(0, 2, 1), {("unseen", "e:1 at a"), ("reordered", "e:1 at a")}),
    "a window of another epoch": (receiving(0, 1, 2, 2, epoch="f"), {("phantom", "f:3 at a")}),
    "other counts at a client": (receiving(0, 1, 2, total=7), {("altered", "e:3 at a")}),
    "a client without windows": (
        lambda made: replace(made, received={"a": []}),
        {("unseen", "e:3 at a")},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_anomaly_is_found_under_its_name(name: str) -> None:
    """And nothing beside it."""
    change, expected = PLANTED[name]
    assert found(change(history())) == expected


def test_records_at_the_offsets_of_lost_ones_are_others() -> None:
    """Kafka loses the end of partition 0, which the first epoch had counted up to 3, and has new records there."""
    grown = Regrown(frozenset({"e"}), {0: 2})
    old = [Stored(0, place, f"r{place}", "😂") for place in range(4)]
    new = [Stored(0, 2, "n2", "🔥"), Stored(0, 3, "n3", "🔥"), Stored(1, 9, "other", "🔥")]
    windows = [
        window(0, {0: (0, 1)}, {"😂": 2}),
        window(1, {0: (2, 3)}, {"😂": 2}),
        structs.replace(window(2, {0: (2, 3), 1: (9, 9)}, {"🔥": 3}), epoch="f"),
    ]
    sent = [Sent(each.reaction_id or "", each.emoji_type or "", "accepted") for each in (*old, *new)]

    def judged(made: Regrown) -> set[tuple[str, str]]:
        return found(History(sent, [*old, *map(made.record, new)], [made.window(each) for each in windows]))

    assert grown.record(new[0]) == Stored(LATER, 2, "n2", "🔥")
    assert grown.record(old[1]) == old[1]
    assert judged(grown) == set()
    # Without it they seem to be counted twice; with a wrong offset a new one is taken for an old one.
    assert ("duplicate", "n2") in judged(Regrown(frozenset({"e"}), {}))
    assert ("duplicate", "n2") in judged(Regrown(frozenset({"e"}), {0: 3}))


def test_a_window_over_surviving_and_new_records_has_two_spans() -> None:
    """Records that survived, and were not counted, are counted together with new ones."""
    grown = Regrown(frozenset({"e"}), {0: 5})
    counted = structs.replace(window(7, {0: (3, 8), 1: (3, 8)}, {}), epoch="f")
    assert grown.window(counted).offsets == {
        "emoji-events-0": (3, 4),
        f"emoji-events-{LATER}": (5, 8),
        "emoji-events-1": (3, 8),
    }
    old = structs.replace(counted, epoch="e")
    assert grown.window(old) is old
