"""What is wrong with a chain, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.messages import Announcement, Window

# A cold first batch takes ten seconds, and an idle job reports every ten.
SILENT_SPARK_S = 15.0
LAG_MIN = 100
BEHIND_MAX = 2
NS = 1_000_000_000


class Member(NamedTuple):
    """A subscriber's last words, and whether it is live."""

    said: Announcement
    live: bool


class Facts(NamedTuple):
    """What `alerts` judges by; None where nothing is known."""

    trigger_s: float
    now_ns: int
    lag: int | None
    arriving_per_s: float | None
    batch_s: float | None
    reported_ns: int | None
    unreadable: str | None
    newest: Window | None
    members: Sequence[Member]


class Trouble(NamedTuple):
    """One thing that is wrong: what, the same at every occurrence, and the figures."""

    what: str
    detail: str


def alerts(facts: Facts) -> Iterator[Trouble]:
    """Yield what is wrong now, from the source of the chain to its end."""
    if facts.unreadable is not None:
        yield Trouble("Kafka cannot be read", facts.unreadable)
    yield from _of_spark(facts)
    yield from _of_subscribers(facts)


def _of_spark(facts: Facts) -> Iterator[Trouble]:
    if facts.batch_s is not None and facts.batch_s > facts.trigger_s:
        yield Trouble(
            "Micro-batches take longer than the trigger",
            f"the newest took {facts.batch_s:.2f} s, one is due every {facts.trigger_s:g} s: windows come late, "
            "and ever later while this lasts",
        )
    if not facts.lag:
        return
    quiet_s = None if facts.reported_ns is None else (facts.now_ns - facts.reported_ns) / NS
    if quiet_s is not None and quiet_s > 3 * facts.trigger_s + SILENT_SPARK_S:
        yield Trouble(
            "Spark is silent",
            f"{facts.lag:,} reactions wait and the last report is {quiet_s:.0f} s old: look at spark's log",
        )
    # Up to a trigger's worth waits whenever one looks, and another while a batch is under way.
    due = 2 * facts.trigger_s * (facts.arriving_per_s or 0.0)
    if facts.lag > max(LAG_MIN, 1.5 * due):
        yield Trouble(
            "Spark falls behind",
            f"{facts.lag:,} reactions wait, where {due:,.0f} would be usual at this rate",
        )


def _of_subscribers(facts: Facts) -> Iterator[Trouble]:
    clusters: dict[str, list[Member]] = {}
    for member in facts.members:
        clusters.setdefault(member.said.cluster, []).append(member)
    if not any(member.live for member in facts.members):
        yield Trouble("Nobody serves clients", "no subscriber is live: start one (python -m pipeline.subscriber)")
    for cluster, members in clusters.items():
        silent = [member.said.subscriber for member in members if not member.live]
        if silent:
            yield Trouble(
                "A subscriber is silent",
                f"cluster {cluster}: {', '.join(silent)} of {len(members)}; its clients move to the others",
            )
        for member in members:
            behind = _behind(member.said.last_event_id, facts)
            if member.live and behind is not None:
                yield Trouble("A subscriber is behind", f"{cluster}/{member.said.subscriber} {behind}")


def _behind(last_event_id: str | None, facts: Facts) -> str | None:
    """How far a subscriber is behind the newest window; None when it is not, or that may still be on its way."""
    newest = facts.newest
    if newest is None:
        return None
    on_its_way = facts.now_ns - newest.emitted_ns < 2 * facts.trigger_s * NS
    epoch, _, number = (last_event_id or "").rpartition(":")
    if epoch != newest.epoch or not number.isdecimal():
        return None if on_its_way else f"has nothing of epoch {newest.epoch}"
    windows = newest.window - int(number)
    return f"is {windows} windows behind" if windows > (BEHIND_MAX if on_its_way else 0) else None
