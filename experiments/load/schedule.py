"""The plan of an open-loop load: which user sends which emoji when, decided before the run.

The plan is made first and sent as it is, whatever the answers are, so that a slow chain cannot reduce the load that
measures it (the "coordinated omission" that wrk2 was built to avoid).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.ledger import pieces
from experiments.units import NS_PER_S, NS_PER_US
from pipeline.errors import SettingError
from pipeline.messages import encode

Column = NDArray[np.object_] | pd.Series


_BY_FREQUENCY = "😂 ❤️ 🔥 👏 😍 🎉 😮 😢 👍🏽 🙌 💯 😭 🤣 😎 🥳 💀 😱 🤔 👀 ✨ 💙 🚀 😡 👎 🙏🏿 🎶 ⚽ 🏆 😴 🤯"
POPULAR_EMOJIS: tuple[str, ...] = tuple(_BY_FREQUENCY.split())
"""Thirty emoji that a live audience sends, the most common first, each in its fully-qualified form.

Two have a skin tone, which is part of the type that is counted.
"""

# A burst, as after a goal.
BURST_EVERY_NS = 60 * NS_PER_S
BURST_NS = 5 * NS_PER_S
BURST_FACTOR = 10
BURST_FOCUS = 0.8

PLAN_COLUMNS = ("seq", "user_id", "emoji_type", "t_intended_ns", "phase")


def timestamp_of(t_ns: int) -> str:
    """Return epoch nanoseconds as ISO 8601 UTC with microseconds (floored), as in
    `2026-11-23T09:30:00.000001Z`.

    Together with the user it identifies a reaction: a record in Kafka is joined to its row of the plan by it.
    """
    whole_s, rest_ns = divmod(int(t_ns), NS_PER_S)
    moment = datetime.fromtimestamp(whole_s, UTC).replace(microsecond=rest_ns // NS_PER_US)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timestamps(t_ns: NDArray[np.int64]) -> NDArray[np.object_]:
    """Return `timestamp_of` each of many moments."""
    texts = np.empty(len(t_ns), dtype=object)
    # In pieces: the text that numpy makes first is large.
    for part in pieces(len(t_ns)):
        texts[part] = np.char.add(np.datetime_as_string((t_ns[part] // NS_PER_US).view("M8[us]")), "Z")
    return texts


def bodies(plan: pd.DataFrame) -> list[bytes]:
    """Return each row's reaction as JSON, made before the run so that only sending is timed.

    The timestamp is `timestamp_of` the intended time; the emoji has the spelling of the column `sent_as`, if there is
    one.
    """
    written = plan["sent_as" if "sent_as" in plan else "emoji_type"]
    return [
        encode({"user_id": user_id, "emoji_type": emoji_type, "timestamp": timestamp})
        for user_id, emoji_type, timestamp in zip(
            plan["user_id"], written, timestamps(plan["t_intended_ns"].to_numpy(dtype=np.int64)), strict=True
        )
    ]


def user_names(users: int) -> list[str]:
    """Return `users` user ids, `fan-0000` and on."""
    if users < 1:
        raise SettingError(f"users is {users}: a load needs at least 1 user.")
    return [f"fan-{number:04d}" for number in range(users)]


def popularity(kind: str, count: int) -> NDArray[np.float64]:
    """Return `count` probabilities that sum to 1: `uniform`, or `zipf` (the k-th as 1/k)."""
    if kind == "uniform":
        return np.full(count, 1.0 / count)
    if kind == "zipf":
        weights = 1.0 / np.arange(1, count + 1)
        return np.asarray(weights / weights.sum(), dtype=np.float64)
    raise SettingError(f"popularity is {kind!r}: choose 'uniform' or 'zipf', or give one weight per emoji.")


def poisson_plan(
    users: Sequence[str],
    rate_per_s: float,
    start_ns: int,
    *,
    trigger_s: float,
    warm_up_triggers: int,
    measured_triggers: int,
    seed: int,
    after_triggers: int = 0,
    emojis: Sequence[str] = POPULAR_EMOJIS,
    weights: str | Sequence[float] = "zipf",
    activity: str = "uniform",
    bursts: bool = False,
) -> pd.DataFrame:
    """Return the seeded plan: columns `seq, user_id, emoji_type, t_intended_ns, phase`, in order of time.

    Arrivals are a Poisson process of `rate_per_s` reactions per second in total. The load begins at `start_ns`
    plus an offset drawn from U(0, `trigger_s`), so that runs are not locked to the trigger grid, and lasts
    `warm_up_triggers`, then `measured_triggers`, then `after_triggers` trigger intervals. Since the measured phase
    lasts a whole number of triggers, its reactions are spread evenly over a trigger interval wherever it begins. With a
    trigger after it, the last window of measured reactions has the load of a whole interval.
    The same arguments give the same plan. No two reactions of one user share a microsecond.

    With `activity` "uniform" all users send alike, with "zipf" the k-th with weight 1/k. With `bursts` there is a
    burst in every BURST_EVERY_NS of each phase (and in the rest of a phase, if a burst fits): for BURST_NS from a
    moment drawn uniformly, the rate is BURST_FACTOR times `rate_per_s`, and a share of BURST_FOCUS of the reactions
    is of one type, drawn for the burst. Outside bursts the rate is `rate_per_s`.

    Raises SettingError for a value from which no plan can be made.
    """
    _check(users, rate_per_s, trigger_s, warm_up_triggers, measured_triggers, emojis)
    shares = popularity(weights, len(emojis)) if isinstance(weights, str) else _shares(weights, len(emojis))
    if activity not in ("uniform", "zipf"):
        raise SettingError(f"activity is {activity!r}: choose 'uniform' or 'zipf'.")
    of_users = popularity(activity, len(users))
    peak_per_s = rate_per_s * (BURST_FACTOR if bursts else 1)
    if peak_per_s * of_users.max() > 0.01 * NS_PER_S / NS_PER_US:
        raise SettingError(
            f"rate_per_s is {rate_per_s}: {len(users)} users cannot send that often at a "
            "distinct microsecond each; use more users."
        )
    trigger_ns = round(trigger_s * NS_PER_S)
    warm_up_ns, measured_ns = warm_up_triggers * trigger_ns, measured_triggers * trigger_ns
    upto_ns = warm_up_ns + measured_ns
    length_ns = upto_ns + after_triggers * trigger_ns
    rng = np.random.default_rng(seed)
    load_start_ns = start_ns + int(rng.integers(0, trigger_ns))
    begins = _burst_begins(rng, warm_up_ns, measured_ns) if bursts else np.empty(0, dtype=np.int64)
    # A burst is a second process on top of the first.
    parts = [(0, length_ns, rate_per_s), *((b, b + BURST_NS, rate_per_s * (BURST_FACTOR - 1)) for b in begins)]
    # Given their number, the arrivals of a Poisson process are independent and uniform on the interval.
    counts = [int(rng.poisson(per_s * (upto - since) / NS_PER_S)) for since, upto, per_s in parts]
    of_part = np.repeat(np.arange(len(parts)), counts)
    times = np.concatenate([rng.integers(since, upto, n) for (since, upto, _), n in zip(parts, counts, strict=True)])
    count = len(times)
    senders = rng.integers(0, len(users), count) if activity == "uniform" else rng.choice(len(users), count, p=of_users)
    while (clash := _clashes(senders, times + load_start_ns)).any():
        for part, (since, upto, _) in enumerate(parts):
            again = clash & (of_part == part)
            times[again] = rng.integers(since, upto, int(again.sum()))
    order = np.argsort(times, kind="stable")
    times, senders = times[order], senders[order]
    chosen = rng.choice(len(emojis), count, p=shares)
    for begin, focus in zip(begins, rng.choice(len(emojis), len(begins), p=shares), strict=True):
        within = (times >= begin) & (times < begin + BURST_NS)
        chosen[within & (rng.random(count) < BURST_FOCUS)] = focus
    return plan_frame(
        np.asarray(users, dtype=object)[senders],
        np.asarray(emojis, dtype=object)[chosen],
        times + load_start_ns,
        (load_start_ns + warm_up_ns, load_start_ns + upto_ns),
    )


def plan_frame(users: Column, emojis: Column, t_ns: NDArray[np.int64], measured_ns: tuple[int, int]) -> pd.DataFrame:
    """Return a plan with the columns PLAN_COLUMNS; the rows are in order of time.

    `phase` is "measured" from `measured_ns[0]` up to `measured_ns[1]`, "warm-up" before and "after" from then on.
    """
    phase = np.select([t_ns < measured_ns[0], t_ns < measured_ns[1]], ["warm-up", "measured"], "after")
    return pd.DataFrame(
        {
            "seq": np.arange(len(t_ns), dtype=np.int64),
            "user_id": np.asarray(users, dtype=object),
            "emoji_type": np.asarray(emojis, dtype=object),
            "t_intended_ns": t_ns,
            "phase": phase.astype(object),
        }
    )


def _burst_begins(rng: np.random.Generator, warm_up_ns: int, measured_ns: int) -> NDArray[np.int64]:
    """Return when bursts begin, ns into the load; each ends within its phase."""
    if measured_ns < BURST_NS:
        raise SettingError(
            f"measured_triggers take {measured_ns / NS_PER_S:g} s: a burst lasts {BURST_NS / NS_PER_S:g} s, measure "
            "at least as long"
        )
    begins = [
        phase_ns + since_ns + int(rng.integers(0, room_ns, endpoint=True))
        for phase_ns, length_ns in ((0, warm_up_ns), (warm_up_ns, measured_ns))
        for since_ns in range(0, length_ns, BURST_EVERY_NS)
        if (room_ns := min(BURST_EVERY_NS, length_ns - since_ns) - BURST_NS) >= 0
    ]
    return np.asarray(begins, dtype=np.int64)


def _clashes(senders: NDArray[np.int64], times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    pairs = pd.DataFrame({"user": senders, "us": times_ns // NS_PER_US})
    return pairs.duplicated().to_numpy(dtype=bool)


def _shares(weights: Sequence[float], count: int) -> NDArray[np.float64]:
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (count,) or not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise SettingError(
            f"weights are {list(weights)!r}: give {count} numbers, one per emoji, none negative and not all zero."
        )
    return np.asarray(given / given.sum(), dtype=np.float64)


def _check(
    users: Sequence[str],
    rate_per_s: float,
    trigger_s: float,
    warm_up_triggers: int,
    measured_triggers: int,
    emojis: Sequence[str],
) -> None:
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise SettingError(f"rate_per_s is {rate_per_s!r}: give a finite number above 0.")
    check_phases(trigger_s, warm_up_triggers, measured_triggers)
    for name, values in (("users", users), ("emojis", emojis)):
        if not values or len(set(values)) != len(values):
            raise SettingError(f"{name} has {len(values)} entries: give at least one, and each once.")


def check_phases(trigger_s: float, warm_up_triggers: int, measured_triggers: int) -> None:
    """Raise SettingError for phases that a load cannot have."""
    if not (math.isfinite(trigger_s) and trigger_s > 0):
        raise SettingError(f"trigger_s is {trigger_s!r}: give a finite number above 0.")
    if warm_up_triggers < 0:
        raise SettingError(f"warm_up_triggers is {warm_up_triggers}: give 0 or more.")
    if measured_triggers < 1:
        raise SettingError(f"measured_triggers is {measured_triggers}: measure at least 1 trigger interval.")
