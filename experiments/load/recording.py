"""A made-up recording of a live audience: many emoji types with few of each, bursts after events, a few busy users.

It has the format that `experiments.load.trace` reads. It is drawn message by message, as people type: a message holds
one or several emoji, all at the same moment. Only integers and basic IEEE 754 arithmetic are used, no logarithms or
powers, so the same seed gives the same bytes on every platform.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments import files
from experiments.load.recording_defaults import MINUTES, MINUTES_MAX, SEED
from experiments.load.schedule import POPULAR_EMOJIS
from experiments.units import MS_PER_MINUTE
from pipeline.errors import SettingError

_TONES = "🏻🏼🏽🏾🏿"
_TONED = "👏 🙌 👍 🙏 💪 👊 ✊ 👋 🤞 👌 👆 🤘 🫶 🤙"
_FACES = (
    "😅 😩 🙄 😁 😬 😤 😳 😏 😆 😀 😃 😄 🙂 😊 🥰 😘 😋 😜 🤪 🤩 😇 🥺 😔 😞 😟 😕 🙁 ☹️ 😣 😖 😫 😠 🤬 😈 "
    "👿 🤡 👻 👽 🤖 😺 😹 🙈 🙉 🙊 😐 😑 😶 😒 😌 😪 🤤 😷 🤒 🤕 🤢 🤮 🤧 🥵 🥶 🥴 😵 🤠 🤓 🧐 😲 😦 "
    "😧 😨 😰 😥 😓 🥱 😝 😛 😙"
)
_THINGS = (
    "💛 💚 💜 🖤 🤍 💔 💕 💖 💥 💫 💦 💨 🍻 🍺 🍾 🥂 🍿 🍕 🎤 🎸 🥁 🎬 📺 📣 📢 🔔 🥇 🥈 🥉 🏅 🎯 🎲 🥅 🏀 🏈 ⚾ 🎾 "
    "🏐 🏉 🏁 💰 💵 💎 ⏰ ⏳ 🌟 ⭐ 🌈 ⚡ ❄️ ☀️ 🌙 🌍 🌊 🌹 🍀 🌻 🐐 🦁 🐯 🐻 🐶 🐱 🦊 🦅 🐝 🦄 🐉 🔴 "
    "🔵 🟢 ⚫ ⚪ ✅ ❌ ❗ ❓ ‼️ 💤 🆗 🚨 🚗 ✈️ 🛸 👑 🎩 🕶️ 👟 🎁 🎈 🎊 🔊"
)
_FLAGS = "🇬🇧 🇺🇸 🇫🇷 🇩🇪 🇪🇸 🇮🇹 🇧🇷 🇦🇷 🇮🇪 🇯🇵 🇰🇷 🇮🇳 🇳🇬 🇲🇽 🇨🇦 🇦🇺 🇳🇱 🇵🇹 🇸🇪 🇵🇱"
_JOINED = "👨‍👩‍👧 ❤️‍🔥 🏳️‍🌈 🤷‍♂️ 🤷‍♀️ 🤦‍♂️ 🤦‍♀️ 🙋‍♀️"
TYPES: tuple[str, ...] = tuple(
    # The popular ones are among those with a tone, too.
    dict.fromkeys(
        (
            *POPULAR_EMOJIS,
            *" ".join((_FACES, _THINGS, _FLAGS, _JOINED)).split(),
            *(hand + tone for hand in _TONED.split() for tone in _TONES),
        )
    )
)
"""Every emoji of a recording, fully qualified; which of the rare ones is how rare is drawn by the seed."""

# The k-th type has weight 1/k, and the first one more: a quarter of all reactions are of one type.
_FIRST_WEIGHT = 1.6
# (n, k): of a hundred messages n have at most k emoji.
_SIZES = ((50, 1), (68, 2), (86, 3), (92, 4), (96, 5), (98, 6), (99, 8), (100, 12))
_REPEATS = 0.5
_MESSAGES_PER_S = 2.6
# One event in each such interval; many people react alike within the seconds after it, most of them at once.
_EVENT_EVERY_MS = 75_000
_BURST_MS = 12_000
_BURST_MESSAGES = (12, 45)
_BURST_FOCUS = 0.7
# A product of two uniform draws prefers small numbers: a few of the numbered users send most.
_USERS_PER_MINUTE = 150


class _Message(NamedTuple):
    offset_ms: int
    focus: str


def recorded(seed: int = SEED, minutes: int = MINUTES) -> pd.DataFrame:
    """Return a recording of `minutes` as `trace.read` returns one: `offset_ms, user_id, emoji_type`, in order of time.

    It begins at 0 ms and its last reaction falls into the last second. The same arguments give the same recording.
    Raises SettingError for a negative seed or minutes out of bounds.
    """
    if seed < 0:
        raise SettingError(f"seed is {seed}: give a whole number from 0")
    if not 1 <= minutes <= MINUTES_MAX:
        raise SettingError(f"minutes is {minutes}: give 1 to {MINUTES_MAX}")
    rows = list(_reactions(random.Random(seed), minutes * MS_PER_MINUTE, minutes * _USERS_PER_MINUTE))
    offsets, users, emojis = zip(*rows, strict=True)
    return pd.DataFrame({"offset_ms": np.array(offsets, dtype=np.int64), "user_id": users, "emoji_type": emojis})


def make(out: Path, seed: int = SEED, minutes: int = MINUTES) -> pd.DataFrame:
    """Write a recording to `out` as CSV, atomically; return it. Raises EmoStreamError if it cannot be written."""
    frame = recorded(seed, minutes)
    files.write_text(out, frame.to_csv(index=False, lineterminator="\n"))
    return frame


def _reactions(rng: random.Random, length_ms: int, users: int) -> Iterator[tuple[int, str, str]]:
    rare = list(TYPES[len(POPULAR_EMOJIS) :])
    _shuffle(rng, rare)
    types = [*POPULAR_EMOJIS, *rare]
    weights = list(accumulate((_FIRST_WEIGHT, *(1 / rank for rank in range(2, len(types) + 1)))))

    def drawn() -> str:
        at = rng.random() * weights[-1]
        return types[next(rank for rank, upto in enumerate(weights) if at < upto)]

    for message in _messages(rng, length_ms, types):
        user = f"user-{int(users * rng.random() * rng.random()):05d}"
        emoji = message.focus if message.focus and rng.random() < _BURST_FOCUS else drawn()
        roll = rng.random() * 100
        for _ in range(next(size for upto, size in _SIZES if roll < upto)):
            yield message.offset_ms, user, emoji
            emoji = emoji if rng.random() < _REPEATS else drawn()


def _messages(rng: random.Random, length_ms: int, types: list[str]) -> list[_Message]:
    """Return when people type, in order of time: evenly spread, and in bursts after events."""
    steady = int(_MESSAGES_PER_S * length_ms / 1000)
    # The first and the last moment are taken, so that a recording has the length that was asked for.
    messages = [_Message(0, ""), _Message(length_ms - 1, "")]
    messages += [_Message(int(rng.random() * length_ms), "") for _ in range(steady)]
    for since_ms in range(0, length_ms, _EVENT_EVERY_MS):
        begin_ms = since_ms + int(rng.random() * _EVENT_EVERY_MS)
        fewest, most = _BURST_MESSAGES
        # Small products again: most events are small.
        size = fewest + int((most - fewest) * rng.random() * rng.random())
        focus = types[int(rng.random() * rng.random() * len(types) / 4)]
        offsets = (begin_ms + int(_BURST_MS * rng.random() * rng.random()) for _ in range(size))
        messages += [_Message(offset_ms, focus) for offset_ms in offsets if offset_ms < length_ms]
    return sorted(messages)


def _shuffle(rng: random.Random, values: list[str]) -> None:
    """Shuffle in place by `random()` alone, the one method whose sequence Python promises to keep."""
    for last in range(len(values) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        values[last], values[other] = values[other], values[last]
