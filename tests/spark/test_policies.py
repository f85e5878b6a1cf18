"""The policies keep their bounds, lose no reaction, and repeat their result in a replay."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SettingError
from pipeline.messages import Window, decode_window, encode
from spark.policies import POLICIES, Shown, cell_bounds, cumulative_bounds, represent, stochastic
from spark.remainders import KEPT, Remainders
from spark.window import window

GROUP = st.integers(1, 30)
COUNTS = st.dictionaries(st.sampled_from("😂🔥👏🎉"), st.integers(1, 60), max_size=4)
STREAM = st.lists(COUNTS, max_size=25)


def shown(policy: str, stream: list[dict[str, int]], group_size: int, epoch: str = "e") -> list[Shown]:
    """Return what each window of `stream` shows, in order."""
    results: list[Shown] = []
    for number, counts in enumerate(stream):
        carried = results[-1].carried if results else {}
        results.append(represent(policy, counts, group_size, epoch=epoch, window=number, carried=carried))
    return results


@given(st.sampled_from(POLICIES), STREAM, GROUP)
def test_cell_error_is_within_bounds(policy: str, stream: list[dict[str, int]], group_size: int) -> None:
    """In any stream; the types shown are exactly those counted."""
    low, high = cell_bounds(policy, group_size)
    for counts, window_shown in zip(stream, shown(policy, stream, group_size), strict=True):
        assert list(window_shown.representatives) == list(counts)
        for kind, count in counts.items():
            assert low <= group_size * window_shown.representatives[kind] - count <= high


@given(st.sampled_from(POLICIES), STREAM, GROUP)
def test_cumulative_error_is_within_bounds(policy: str, stream: list[dict[str, int]], group_size: int) -> None:
    """For every type, over any prefix of the windows."""
    error: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    for counts, window_shown in zip(stream, shown(policy, stream, group_size), strict=True):
        for kind, count in counts.items():
            error[kind] += group_size * window_shown.representatives[kind] - count
            cells[kind] += 1
            low, high = cumulative_bounds(policy, group_size, cells[kind])
            assert low <= error[kind] <= high


@pytest.mark.parametrize(
    ("policy", "counts", "reached"),
    [("ceil", [1], 9), ("floor", [9], -9), ("carry", [9], -9), ("carry", [9, 1], 9)],
)
def test_cell_bounds_are_tight(policy: str, counts: list[int], reached: int) -> None:
    """A cell can have an error equal to each bound."""
    last = shown(policy, [{"😂": count} for count in counts], 10)[-1]
    assert 10 * last.representatives["😂"] - counts[-1] == reached
    assert reached in cell_bounds(policy, 10)


@given(STREAM, GROUP)
def test_carry_shows_or_carries_every_reaction(stream: list[dict[str, int]], group_size: int) -> None:
    """For every type and window; a remainder is smaller than a group."""
    counted: Counter[str] = Counter()
    represented: Counter[str] = Counter()
    for counts, result in zip(stream, shown("carry", stream, group_size), strict=True):
        counted.update(counts)
        represented.update({kind: group_size * number for kind, number in result.representatives.items()})
        assert counted - represented == result.carried
        assert all(0 < rest < group_size for rest in result.carried.values())


@given(st.lists(st.integers(1, 200), max_size=20), GROUP)
def test_carry_total_does_not_depend_on_the_windows(counts: list[int], group_size: int) -> None:
    """Splitting the same reactions differently changes neither the sum shown nor the last remainder."""
    split = shown("carry", [{"😂": count} for count in counts], group_size)
    at_once = shown("carry", [{"😂": sum(counts)}] if counts else [], group_size)
    assert sum(result.representatives["😂"] for result in split) == sum(
        result.representatives["😂"] for result in at_once
    )
    assert [result.carried for result in split[-1:]] == [result.carried for result in at_once]


def test_remainder_of_absent_type_is_kept() -> None:
    """It stays unchanged over any number of windows, and shows nothing."""
    stream = [{"😂": 7}, *({"🔥": 10} for _ in range(50)), {"😂": 3}]
    results = shown("carry", stream, 10)
    assert all(result.carried == {"😂": 7} for result in results[:-1])
    assert all("😂" not in result.representatives for result in results[1:-1])
    assert results[-1] == Shown({"😂": 1}, {})


def test_smaller_group_size_shows_carried_reactions() -> None:
    """A change of the group size between two windows loses no reaction."""
    assert represent("carry", {"😂": 1}, 3, epoch="e", window=1, carried={"😂": 9}) == Shown({"😂": 3}, {"😂": 1})


@pytest.mark.parametrize("policy", ["ceil", "floor", "stochastic"])
def test_other_policies_ignore_and_keep_no_remainders(policy: str) -> None:
    """They show a window independently of the windows before it."""
    alone = represent(policy, {"😂": 15}, 10, epoch="e", window=4)
    assert represent(policy, {"😂": 15}, 10, epoch="e", window=4, carried={"😂": 9, "🔥": 1}) == alone
    assert alone.carried == {}


@given(st.integers(1, 10**9), GROUP)
def test_ceil_shows_every_type_that_occurred(count: int, group_size: int) -> None:
    """Up to a full group gets one representative, and one reaction more gets the next."""
    result = represent("ceil", {"😂": count}, group_size, epoch="e", window=0)
    assert result.representatives["😂"] == (count + group_size - 1) // group_size >= 1


@pytest.mark.parametrize("count", [1, 3, 5, 9, 10, 14])
def test_stochastic_is_unbiased(count: int) -> None:
    """Over many windows the mean number shown is count / group_size, within four standard errors."""
    windows = 20_000
    total = sum(stochastic(count, 10, epoch="unbiased", window=n, emoji_type="😂") for n in range(windows))
    share = count % 10 / 10
    assert abs(total / windows - count / 10) <= 4 * (share * (1 - share) / windows) ** 0.5


def test_stochastic_draws_are_independent_per_type_and_epoch() -> None:
    """Two types of one window, or two epochs, agree in about half of the windows."""
    names = [("e", "😂"), ("e", "🔥"), ("f", "😂")]
    drawn = [[stochastic(5, 10, epoch=e, window=n, emoji_type=kind) for n in range(4000)] for e, kind in names]
    for first, second in itertools.combinations(drawn, 2):
        equal = sum(a == b for a, b in zip(first, second, strict=True))
        assert abs(equal - 2000) <= 4 * 1000**0.5


def test_stochastic_repeats_its_draw_in_another_process() -> None:
    """A replay after a restart repeats the draw, independent of Python's hash seed."""
    program = (
        "from spark.policies import stochastic\n"
        "print([stochastic(7, 10, epoch='e', window=n, emoji_type='😂') for n in range(40)])"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    here = [stochastic(7, 10, epoch="e", window=n, emoji_type="😂") for n in range(40)]
    assert printed == [f"{here}\n"] * 2
    assert 15 < sum(here) < 40


@pytest.mark.parametrize(("policy", "group_size"), [("nearest", 10), ("ceil", 0)])
def test_unknown_policy_or_group_size_raises_setting_error(policy: str, group_size: int) -> None:
    """The error names the value and the valid ones."""
    with pytest.raises(SettingError, match=r"choose one of ceil, floor, carry, stochastic"):
        represent(policy, {}, group_size, epoch="e", window=0)
    with pytest.raises(SettingError, match=repr(policy)):
        cell_bounds(policy, group_size)


def emitted(number: int, counts: dict[str, int], remainders: Remainders, group_size: int = 10) -> Window:
    """Return the window of one micro-batch as read from Kafka; its remainders are kept."""
    rows = [
        {"emoji_type": kind, "partition": 0, "count": count, "first": 0, "last": 9} for kind, count in counts.items()
    ]
    made = window(
        rows,
        topic="t",
        epoch="e",
        number=number,
        trigger_ns=1,
        emitted_ns=2,
        group_size=group_size,
        policy="carry",
        carried=remainders.before(number),
    )
    assert made is not None
    remainders.keep(number, made.carried or {})
    return decode_window(encode(made))


@given(st.lists(COUNTS.filter(bool), min_size=1, max_size=12), st.data())
def test_carry_gives_the_same_windows_after_a_restart(stream: list[dict[str, int]], data: st.DataObject) -> None:
    """With remainders rebuilt from the topic, new and replayed windows are the same as without a restart."""
    remainders = Remainders()
    whole = [emitted(number, counts, remainders) for number, counts in enumerate(stream)]
    cut = data.draw(st.integers(0, len(stream)), label="windows emitted before the restart")
    replayed = data.draw(st.integers(0, min(1, cut)), label="of these replayed")
    topic = whole[:cut]
    for _ in range(3 * replayed):  # killed three times at the same window
        resumed = Remainders.of(topic, "e")
        topic.append(emitted(cut - 1, stream[cut - 1], resumed))
    resumed = Remainders.of(topic, "e")
    topic += [emitted(number, stream[number], resumed) for number in range(cut - replayed, len(stream))]
    for copy in topic:
        assert encode(copy) == encode(whole[copy.window])


def test_replay_with_another_group_size_keeps_the_first_remainders() -> None:
    """The first copy of a window was shown, so the next window continues from that copy."""
    remainders = Remainders()
    topic = [emitted(0, {"😂": 7}, remainders), emitted(1, {"😂": 1}, remainders)]
    resumed = Remainders.of(topic, "e")
    replay = emitted(1, {"😂": 1}, resumed, group_size=4)
    assert (replay.reactions[0].representatives, replay.carried or {}) == (2, {})
    assert resumed.before(2) == {"😂": 8}


def test_remainders_belong_to_one_epoch_and_old_ones_are_dropped() -> None:
    """Windows of another epoch are not used, and only remainders that a replay can need are kept."""
    other = emitted(3, {"😂": 7}, Remainders())
    assert Remainders.of([other], "another").before(4) == {}
    remainders = Remainders()
    for number in range(10):
        remainders.keep(2 * number, {"😂": number})
    assert remainders.before(18 + 1) == {"😂": 9}
    assert remainders.before(18) == {"😂": 8}, "windows without records are skipped"
    assert [remainders.before(number) for number in range(2 * (10 - KEPT) + 1)] == [{}] * (2 * (10 - KEPT) + 1)
