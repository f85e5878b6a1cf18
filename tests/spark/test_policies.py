"""The policies keep their bounds whatever is counted, lose nothing, and answer a replay alike."""

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
    """What each window of `stream` shows, one after the other."""
    results: list[Shown] = []
    for number, counts in enumerate(stream):
        carried = results[-1].carried if results else {}
        results.append(represent(policy, counts, group_size, epoch=epoch, window=number, carried=carried))
    return results


@given(st.sampled_from(POLICIES), STREAM, GROUP)
def test_every_cell_is_within_its_bounds(policy: str, stream: list[dict[str, int]], group_size: int) -> None:
    """No cell of any stream is further off than its policy states, and exactly what was counted is answered for."""
    low, high = cell_bounds(policy, group_size)
    for counts, window_shown in zip(stream, shown(policy, stream, group_size), strict=True):
        assert list(window_shown.representatives) == list(counts)
        for kind, count in counts.items():
            assert low <= group_size * window_shown.representatives[kind] - count <= high


@given(st.sampled_from(POLICIES), STREAM, GROUP)
def test_every_prefix_is_within_its_cumulative_bounds(
    policy: str, stream: list[dict[str, int]], group_size: int
) -> None:
    """Over any prefix of windows no type is further off than its policy states."""
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
def test_the_bounds_of_a_cell_are_reached(policy: str, counts: list[int], reached: int) -> None:
    """The bounds are no wider than they must be: a cell can be off by all of them."""
    last = shown(policy, [{"😂": count} for count in counts], 10)[-1]
    assert 10 * last.representatives["😂"] - counts[-1] == reached
    assert reached in cell_bounds(policy, 10)


@given(STREAM, GROUP)
def test_carry_conserves(stream: list[dict[str, int]], group_size: int) -> None:
    """What was counted is shown or carried, type by type, at every window; a remainder is less than a group."""
    counted: Counter[str] = Counter()
    stood_for: Counter[str] = Counter()
    for counts, result in zip(stream, shown("carry", stream, group_size), strict=True):
        counted.update(counts)
        stood_for.update({kind: group_size * number for kind, number in result.representatives.items()})
        assert counted - stood_for == result.carried
        assert all(0 < rest < group_size for rest in result.carried.values())


@given(st.lists(st.integers(1, 200), max_size=20), GROUP)
def test_carry_shows_the_same_in_total_however_it_is_split(counts: list[int], group_size: int) -> None:
    """Where the windows are cut does not change the sum of what is shown, nor what is left at the end."""
    split = shown("carry", [{"😂": count} for count in counts], group_size)
    at_once = shown("carry", [{"😂": sum(counts)}] if counts else [], group_size)
    assert sum(result.representatives["😂"] for result in split) == sum(
        result.representatives["😂"] for result in at_once
    )
    assert [result.carried for result in split[-1:]] == [result.carried for result in at_once]


def test_a_carried_type_that_does_not_occur_stays_carried() -> None:
    """However long a type is away, its remainder waits and nothing is shown for it."""
    stream = [{"😂": 7}, *({"🔥": 10} for _ in range(50)), {"😂": 3}]
    results = shown("carry", stream, 10)
    assert all(result.carried == {"😂": 7} for result in results[:-1])
    assert all("😂" not in result.representatives for result in results[1:-1])
    assert results[-1] == Shown({"😂": 1}, {})


def test_a_smaller_group_shows_what_had_been_carried() -> None:
    """A group size that was changed between two windows loses nothing."""
    assert represent("carry", {"😂": 1}, 3, epoch="e", window=1, carried={"😂": 9}) == Shown({"😂": 3}, {"😂": 1})


@pytest.mark.parametrize("policy", ["ceil", "floor", "stochastic"])
def test_only_carry_carries(policy: str) -> None:
    """Any other policy shows a window as if there had been none before it, and carries nothing on."""
    alone = represent(policy, {"😂": 15}, 10, epoch="e", window=4)
    assert represent(policy, {"😂": 15}, 10, epoch="e", window=4, carried={"😂": 9, "🔥": 1}) == alone
    assert alone.carried == {}


@given(st.integers(1, 10**9), GROUP)
def test_ceil_alone_lets_nothing_vanish(count: int, group_size: int) -> None:
    """Up to a group of a type becomes one, and the next group begins with the next reaction."""
    result = represent("ceil", {"😂": count}, group_size, epoch="e", window=0)
    assert result.representatives["😂"] == (count + group_size - 1) // group_size >= 1


@pytest.mark.parametrize("count", [1, 3, 5, 9, 10, 14])
def test_stochastic_is_unbiased(count: int) -> None:
    """Over many windows the mean of what is shown is count / group, within four standard errors; or exactly."""
    windows = 20_000
    total = sum(stochastic(count, 10, epoch="unbiased", window=n, emoji_type="😂") for n in range(windows))
    share = count % 10 / 10
    assert abs(total / windows - count / 10) <= 4 * (share * (1 - share) / windows) ** 0.5


def test_stochastic_draws_for_each_type_and_epoch_by_itself() -> None:
    """Types of one window do not rise and fall together, nor do the windows of two epochs."""
    names = [("e", "😂"), ("e", "🔥"), ("f", "😂")]
    drawn = [[stochastic(5, 10, epoch=e, window=n, emoji_type=kind) for n in range(4000)] for e, kind in names]
    for one, other in itertools.combinations(drawn, 2):
        equal = sum(a == b for a, b in zip(one, other, strict=True))
        assert abs(equal - 2000) <= 4 * 1000**0.5


def test_stochastic_answers_alike_in_another_process() -> None:
    """A replay after a restart repeats the draw, whatever seed Python gives its own hashes."""
    program = (
        "from spark.policies import stochastic\n"
        "print([stochastic(7, 10, epoch='e', window=n, emoji_type='😂') for n in range(40)])"
    )
    said = [
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
    assert said == [f"{here}\n"] * 2
    assert 15 < sum(here) < 40


@pytest.mark.parametrize(("policy", "group_size"), [("nearest", 10), ("ceil", 0)])
def test_what_is_no_policy_is_refused(policy: str, group_size: int) -> None:
    """An unknown policy and an impossible group are named with what to choose from."""
    with pytest.raises(SettingError, match=r"choose one of ceil, floor, carry, stochastic"):
        represent(policy, {}, group_size, epoch="e", window=0)
    with pytest.raises(SettingError, match=repr(policy)):
        cell_bounds(policy, group_size)


def emitted(number: int, counts: dict[str, int], remainders: Remainders, group_size: int = 10) -> Window:
    """The window of one micro-batch as it comes back from Kafka, its remainders kept."""
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
def test_carry_survives_a_restart_anywhere(stream: list[dict[str, int]], data: st.DataObject) -> None:
    """Rebuilt from the windows on the topic, the next window and a replayed one are what they would have been."""
    remainders = Remainders()
    whole = [emitted(number, counts, remainders) for number, counts in enumerate(stream)]
    cut = data.draw(st.integers(0, len(stream)), label="windows emitted before the restart")
    replayed = data.draw(st.integers(0, min(1, cut)), label="of these replayed")
    topic = whole[:cut]
    for _ in range(3 * replayed):  # killed three times at the same place
        resumed = Remainders.of(topic, "e")
        topic.append(emitted(cut - 1, stream[cut - 1], resumed))
    resumed = Remainders.of(topic, "e")
    topic += [emitted(number, stream[number], resumed) for number in range(cut - replayed, len(stream))]
    for copy in topic:
        assert encode(copy) == encode(whole[copy.window])


def test_a_replay_under_another_group_size_changes_nothing_downstream() -> None:
    """The first copy of a window is the one that was shown, so the next window goes on from that one."""
    remainders = Remainders()
    topic = [emitted(0, {"😂": 7}, remainders), emitted(1, {"😂": 1}, remainders)]
    resumed = Remainders.of(topic, "e")
    replay = emitted(1, {"😂": 1}, resumed, group_size=4)
    assert (replay.reactions[0].representatives, replay.carried or {}) == (2, {})
    assert resumed.before(2) == {"😂": 8}


def test_remainders_are_of_their_epoch_and_few() -> None:
    """Another epoch's windows are nothing to go on from, and what no replay can need is forgotten."""
    other = emitted(3, {"😂": 7}, Remainders())
    assert Remainders.of([other], "another").before(4) == {}
    remainders = Remainders()
    for number in range(10):
        remainders.keep(2 * number, {"😂": number})
    assert remainders.before(18 + 1) == {"😂": 9}
    assert remainders.before(18) == {"😂": 8}, "windows without records leave numbers out"
    assert [remainders.before(number) for number in range(2 * (10 - KEPT) + 1)] == [{}] * (2 * (10 - KEPT) + 1)
