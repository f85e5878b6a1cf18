"""A session at a chain, apart from the chain: the load drawn, latency by window, the swarm, the picture."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from experiments.explore import swarm
from experiments.explore.live_load import LiveLoad, arrivals, user_names
from experiments.explore.picture import picture
from experiments.explore.seen_windows import Ledger, Seen, quantile_s, seen
from experiments.explore.session import Session
from experiments.explore.state import State
from experiments.explore.view import View, status
from experiments.load.schedule import BURST_FOCUS, timestamp_of
from experiments.machine import machine_lock
from experiments.parameters import Parameters
from experiments.units import NS_PER_S
from pipeline.bus.base import Record
from pipeline.errors import EmoStreamError, SettingError
from pipeline.messages import Event, TypeCount, Window, encode

START_NS = 1_764_000_000 * NS_PER_S


def reaction(partition: int, offset: int, due_ns: int, user_id: str = "look-0001") -> Record:
    """A record of emoji-events whose reaction was due at `due_ns`."""
    event = Event(user_id, "😂", timestamp_of(due_ns), due_ns, due_ns)
    return Record(partition, offset, 0, None, encode(event))


def window(offsets: dict[str, tuple[int, int]], total: int, *counts: TypeCount) -> Window:
    """A window over these offsets."""
    return Window("epoch", 7, START_NS, START_NS, offsets, total, list(counts))


def a_window(name: str, latencies_s: list[float], *counts: TypeCount) -> Seen:
    """A window that arrived, its reactions all ours."""
    return Seen(name, START_NS, sum(one.count for one in counts), counts, np.array(latencies_s))


class Topic:
    """A reader that hands out one batch a poll."""

    def __init__(self, *batches: list[Record]) -> None:
        self.batches = list(batches)

    def poll(self, timeout_s: float) -> list[Record]:
        """The next batch."""
        return self.batches.pop(0) if self.batches else []

    def close(self) -> None:
        """Nothing to close."""


def test_arrivals_are_poisson_in_their_tick_and_in_order() -> None:
    """A second at 1,000/s gives about a thousand reactions, each stamped within it, in order of time."""
    rng = np.random.default_rng(1)
    drawn = arrivals(rng, 1000.0, START_NS, START_NS + NS_PER_S, user_names(5, "look"))
    stamps = [datetime.fromisoformat(one["timestamp"]) for one in drawn]
    assert 900 < len(drawn) < 1100
    assert stamps == sorted(stamps)
    assert datetime.fromtimestamp(START_NS // NS_PER_S, UTC) <= stamps[0] <= stamps[-1]
    assert (stamps[-1] - stamps[0]).total_seconds() < 1
    assert {one["user_id"] for one in drawn} == {f"look-{number:04d}" for number in range(5)}


def test_a_burst_is_mostly_of_one_type() -> None:
    """With a focus, the share of a goal's reactions that are alike is BURST_FOCUS at least."""
    drawn = arrivals(np.random.default_rng(1), 5000.0, START_NS, START_NS + NS_PER_S, ["look-0000"], "⚽")
    share = sum(one["emoji_type"] == "⚽" for one in drawn) / len(drawn)
    assert share == pytest.approx(BURST_FOCUS, abs=0.03)


def test_a_clock_that_stepped_back_gives_no_arrivals() -> None:
    """A tick that ends before it began holds nothing."""
    assert arrivals(np.random.default_rng(1), 5000.0, START_NS, START_NS - NS_PER_S, ["look-0000"]) == []


@pytest.mark.parametrize("answered", [202, 503])
def test_the_rate_changes_while_it_runs_and_every_answer_is_counted(answered: int) -> None:
    """What is sent follows the rate from the next tick on; accepted and refused add up to it."""

    async def body() -> tuple[int, int, LiveLoad]:
        got: list[int] = []

        async def take(request: web.Request) -> web.Response:
            got.append(len(await request.json()))
            return web.Response(status=answered)

        app = web.Application()
        app.router.add_post("/reactions", take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        load, stop = LiveLoad(["look-0000"], 20.0, 1), asyncio.Event()
        async with aiohttp.ClientSession() as http:
            running = asyncio.create_task(load.run(http, url, stop))
            await asyncio.sleep(0.5)
            before, load.rate_per_s = load.sent, 5000.0
            await asyncio.sleep(0.5)
            stop.set()
            await running
        await runner.cleanup()
        return before, sum(got), load

    before, got, load = asyncio.run(body())
    assert before < 100 < 500 < load.sent == got
    assert (load.accepted, load.refused) == ((got, 0) if answered == 202 else (0, got))


def test_latency_runs_from_the_moment_a_reaction_was_due_to_the_receipt_of_its_window() -> None:
    """Only reactions of ours, and only those in the window's offsets, enter its latencies."""
    ledger = Ledger("look-")
    ledger.add(
        [
            reaction(0, 10, START_NS),
            reaction(0, 11, START_NS + NS_PER_S, "fan-0001"),
            reaction(0, 12, START_NS + NS_PER_S),
        ]
    )
    ledger.add(
        [reaction(1, 4, START_NS + 2 * NS_PER_S), reaction(1, 5, START_NS + 3 * NS_PER_S), Record(1, 6, 0, None, b"?")]
    )
    first = ledger.claim(window({"emoji-events-0": (10, 12), "emoji-events-1": (4, 4)}, 4), START_NS + 6 * NS_PER_S)
    assert sorted(first.latencies_s) == [4.0, 5.0, 6.0]
    assert (first.median_s, first.slowest_s, first.total) == (5.0, 6.0, 4)
    second = ledger.claim(window({"emoji-events-1": (5, 6)}, 1), START_NS + 12 * NS_PER_S)
    assert list(second.latencies_s) == [9.0]


def test_a_window_waits_for_its_records() -> None:
    """Kafka is read as far as the window's offsets go before its latencies are computed."""
    topic = Topic([reaction(0, 0, START_NS)], [], [reaction(0, 1, START_NS + NS_PER_S)])
    counted = window({"emoji-events-0": (0, 1)}, 2)
    assert len(asyncio.run(seen(Ledger("look-"), topic, counted, START_NS + 2 * NS_PER_S)).latencies_s) == 2


def test_missing_records_raise_with_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window whose offsets Kafka does not hand out ends in an error that names it."""
    monkeypatch.setattr("experiments.explore.seen_windows.READ_S", 0.0)
    with pytest.raises(EmoStreamError, match=r"epoch:7.*broker"):
        asyncio.run(seen(Ledger("look-"), Topic(), window({"emoji-events-0": (0, 1)}, 2), START_NS))


def test_a_percentile_needs_samples() -> None:
    """The windows' latencies are pooled, and p99 needs a thousand of them."""
    few, many = a_window("e:1", [1.0] * 500), a_window("e:2", [3.0] * 500)
    assert math.isnan(quantile_s([few], 0.99))
    assert quantile_s([few, many], 0.99) == 3.0
    assert quantile_s([few, many], 0.5) == 1.0
    assert math.isnan(quantile_s([], 0.5))


def test_a_swarm_shows_each_representative_once_within_its_field() -> None:
    """As many emoji as representatives, inside the field, the most frequent the largest and nearest the middle."""
    placed = swarm.layout([TypeCount("😂", 300, 30), TypeCount("🔥", 45, 5), TypeCount("🤯", 4, 0)], "e:1")
    by_type = {kind: [one for one in placed if one.emoji_type == kind] for kind in "😂🔥🤯"}
    assert [len(ones) for ones in by_type.values()] == [30, 5, 0]
    assert all(
        one.size / 2 < one.x < swarm.WIDTH - one.size / 2 and one.size / 2 < one.y < swarm.HEIGHT - one.size / 2
        for one in placed
    )
    assert by_type["😂"][0].size > by_type["🔥"][0].size
    middle = [
        np.mean([math.hypot(one.x - swarm.WIDTH / 2, one.y - swarm.HEIGHT / 2) for one in by_type[kind]])
        for kind in "😂🔥"
    ]
    assert middle[0] < middle[1]


def test_a_swarm_is_the_same_for_the_same_window() -> None:
    """The window decides the places, whatever order its types come in; another window gives others."""
    counts = [TypeCount("😂", 30, 3), TypeCount("🔥", 25, 3)]
    assert swarm.layout(counts, "e:1") == swarm.layout(counts[::-1], "e:1") != swarm.layout(counts, "e:2")


def test_emoji_of_a_swarm_do_not_overlap() -> None:
    """Even at the most that is drawn, emoji stand well apart."""
    placed = swarm.layout([TypeCount("😂", 9000, 900), TypeCount("🔥", 100, 10)], "e:1")
    assert len(placed) <= swarm.MOST
    apart = min(math.hypot(a.x - b.x, a.y - b.y) for i, a in enumerate(placed) for b in placed[:i])
    assert apart > 0.9 * max(one.size for one in placed)


def test_a_type_in_a_crowd_never_vanishes() -> None:
    """Where there are too many to draw, each type keeps its share and the rarest keeps one."""
    assert swarm.shown([TypeCount("🔥", 9, 1), TypeCount("😂", 9990, 999)]) == {"😂": 239, "🔥": 1}
    assert swarm.shown([]) == {}
    assert swarm.layout([TypeCount("😂", 3, 0)], "e:1") == []


def test_the_picture_shows_latency_counts_and_swarm() -> None:
    """Floors, counted against accepted, every bar and the swarm stand in the picture; too few for p99 is a dash."""
    shown = [a_window(f"e:{n}", [1.0, 3.5, 6.5], TypeCount("😂", 38, 4), TypeCount("<b>", 1, 1)) for n in range(3)]
    state = State("running", sent=9, accepted=9, counted=9, arrived=3, windows=tuple(shown), parameters=Parameters())
    page = picture(state)
    for words in ("floor 3.05 s", "counted, of 9 accepted", "5 representatives", "39 reactions", "38 → 4", "–"):
        assert words in page
    assert 'aria-label="On screen: 😂 4' in page
    assert "<b>1" not in page
    assert page.count("<style>") == 1
    assert ":root" not in page
    assert picture(state) == page


@pytest.mark.parametrize("phase", ["idle", "starting", "running", "draining", "ended", "failed"])
def test_every_phase_has_its_text(phase: str) -> None:
    """Before a window came, status and picture say what goes on."""
    state = State(phase, error="no <Kafka>")
    assert 'class="note"' in picture(state)
    assert ("no &lt;Kafka&gt;" in status(state)) == (phase == "failed")


def test_a_window_of_others_reactions_alone_has_no_latency() -> None:
    """On a chain that is up, a window may hold none of ours: it is counted and shown, its latency a gap."""
    state = State("running", arrived=1, windows=(a_window("e:1", [], TypeCount("😂", 38, 4)),))
    assert "38 → 4" in picture(state)


def test_a_session_names_a_parameter_that_is_wrong() -> None:
    """Values are checked before anything starts, and a rate when it is set."""
    given = {"users": 1, "rate_per_s": 1.0, "trigger_s": 2.0, "policy": "ceil"}
    with pytest.raises(SettingError, match=r"policy is 'round'"):
        Session(**{**given, "policy": "round"})
    session = Session(**given)
    with pytest.raises(SettingError, match=r"rate_per_s is 0"):
        session.set_rate(0.0)
    assert session.state.rate_per_s == 1.0


def test_a_session_that_cannot_attach_raises_and_can_be_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The thread's error comes out of `watch`, with its remedy; afterwards nothing runs."""
    # A lock of its own: a measurement may run at the same time.
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    given = {"users": 1, "rate_per_s": 1.0, "trigger_s": 2.0, "policy": "ceil", "attach": "/nowhere/ready.json"}
    session = Session(**given)
    for _ in range(2):
        with pytest.raises(EmoStreamError, match="names no running chain"):
            session.watch(1.0)
        assert session.state.phase == "failed"
        assert session.state.over


def test_the_panel_sets_the_rate_and_allows_what_can_be_done() -> None:
    """Start alone can be pressed before the start; the slider sets the rate, and holds one beyond its usual range."""
    session = Session(users=1, rate_per_s=2500.0, trigger_s=2.0, policy="ceil")
    buttons = View(session).widget.children[0].children
    assert [one.disabled for one in buttons] == [False, True, True, False]
    assert buttons[3].value == pytest.approx(2500.0)
    buttons[3].value = 100.0
    assert session.state.rate_per_s == pytest.approx(100.0)
    running = replace(session.state, phase="running", sent=1234)
    assert "1,234 reactions sent, 100 per second" in status(running)


def test_follow_refuses_to_wait_for_no_window() -> None:
    """Nothing is started for a number below 1."""
    session = Session(users=1, rate_per_s=1.0, trigger_s=2.0, policy="ceil")
    with pytest.raises(SettingError, match="windows is 0: give 1 or more"):
        next(session.follow(0))
    assert session.state.phase == "idle"


def test_follow_raises_why_a_session_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The states before the failure are yielded first; afterwards nothing runs."""
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    session = Session(users=1, rate_per_s=1.0, trigger_s=2.0, policy="ceil", attach="/nowhere/ready.json")
    with pytest.raises(EmoStreamError, match="names no running chain"):
        list(session.follow(1))
    assert session.state.over
