"""An open-loop load whose rate can be changed while it runs.

Arrivals are a Poisson process. Those of one tick are drawn at its end and share requests (ingest takes arrays), so that
one thread of a notebook keeps up with a burst. A tick's length is therefore part of the latencies seen: this load is
for exploring a chain. To measure one use `experiments.load`, which plans ahead and sends each reaction by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp
import numpy as np

from experiments.load.schedule import BURST_FACTOR, BURST_FOCUS, BURST_NS, POPULAR_EMOJIS, popularity, timestamp_of
from experiments.units import NS_PER_S
from pipeline.errors import EmoStreamError
from pipeline.messages import encode

TICK_S = 0.02
# Below ingest's `array_max` and `body_max_bytes`.
TOGETHER = 500
# Requests without an answer yet; with this many no more are sent, and due reactions wait for a later tick.
UNDER_WAY_MAX = 200
ANSWER_S = 30.0

Reaction = dict[str, str]


def arrivals(
    rng: np.random.Generator,
    rate_per_s: float,
    since_ns: int,
    upto_ns: int,
    users: Sequence[str],
    focus: str = "",
) -> list[Reaction]:
    """Return the reactions of a Poisson process in [since_ns, upto_ns), in order of time, each stamped with its own.

    Types are drawn by Zipf's law from POPULAR_EMOJIS. With `focus` (a type) a share of BURST_FOCUS is of that type.
    """
    if upto_ns <= since_ns:
        return []
    times = np.sort(rng.integers(since_ns, upto_ns, rng.poisson(rate_per_s * (upto_ns - since_ns) / NS_PER_S)))
    types = rng.choice(len(POPULAR_EMOJIS), len(times), p=popularity("zipf", len(POPULAR_EMOJIS)))
    focused = rng.random(len(times)) < (BURST_FOCUS if focus else 0.0)
    senders = rng.integers(0, len(users), len(times))
    return [
        {
            "user_id": users[sender],
            "emoji_type": focus if on_focus else POPULAR_EMOJIS[kind],
            "timestamp": timestamp_of(t_ns),
        }
        for sender, kind, t_ns, on_focus in zip(senders, types, times, focused, strict=True)
    ]


class LiveLoad:
    """The load and its result: reactions `sent`, `accepted` (answered 202) and `refused` (all others).

    `rate_per_s` may be set, and `burst` called, from any thread at any time; they apply from the next tick on.
    """

    def __init__(self, users: Sequence[str], rate_per_s: float, seed: int) -> None:
        self.rate_per_s = rate_per_s
        self.sent = self.accepted = self.refused = 0
        self._users = users
        self._rng = np.random.default_rng(seed)
        self._burst = (0, "")

    def burst(self) -> None:
        """Start a burst: for five seconds ten times as many react, most of them alike."""
        kind = str(self._rng.choice(POPULAR_EMOJIS[:10]))
        self._burst = (time.time_ns() + BURST_NS, kind)

    @property
    def bursting(self) -> bool:
        """Whether a burst is under way."""
        return time.time_ns() < self._burst[0]

    async def run(self, session: aiohttp.ClientSession, url: str, stop: asyncio.Event) -> None:
        """Post to `url`/reactions until `stop`, then wait for the answers that are still missing."""
        since_ns = time.time_ns()
        under_way: set[asyncio.Task[None]] = set()
        try:
            while not stop.is_set():
                await asyncio.sleep(TICK_S)
                if len(under_way) >= UNDER_WAY_MAX:
                    continue
                upto_ns = time.time_ns()
                until_ns, focus = self._burst
                rate_per_s, kind = (
                    (self.rate_per_s * BURST_FACTOR, focus) if upto_ns < until_ns else (self.rate_per_s, "")
                )
                due = arrivals(self._rng, rate_per_s, since_ns, upto_ns, self._users, kind)
                since_ns = upto_ns
                for first in range(0, len(due), TOGETHER):
                    task = asyncio.create_task(self._post(session, url, due[first : first + TOGETHER]))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)
        finally:
            for task in under_way:
                task.cancel()

    async def _post(self, session: aiohttp.ClientSession, url: str, reactions: list[Reaction]) -> None:
        self.sent += len(reactions)
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                session.post(f"{url}/reactions", data=encode(reactions), headers=headers) as answer,
            ):
                accepted = answer.status == 202
                await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            accepted = False
        if accepted:
            self.accepted += len(reactions)
        else:
            self.refused += len(reactions)


def user_names(users: int, session: str) -> list[str]:
    """Return the ids of a session's users, which no other session on the same chain has."""
    if users < 1:
        raise EmoStreamError(f"users is {users}: give 1 or more")
    return [f"{session}-{number:04d}" for number in range(users)]
