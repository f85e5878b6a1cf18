"""What is wrong with a chain, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.messages import Announcement, Window
from pipeline.units import NS_PER_S

# A cold first batch takes ten seconds, and an idle job reports every ten.
SILENT_SPARK_S = 15.0
LAG_MIN = 100
BEHIND_MAX = 2


class Member(NamedTuple):
    """A subscriber's last announcement, whether it is live, and how long ago it was announced."""

    announcement: Announcement
    live: bool
    age_ns: int


class Facts(NamedTuple):
    """The input of `alerts`; None means unknown."""

    trigger_s: float
    now_ns: int
    lag: int | None
    arriving_per_s: float | None
    batch_s: float | None
    reported_ns: int | None
    unreadable: str | None
    newest: Window | None
    members: Sequence[Member]


class Alert(NamedTuple):
    """One problem: a title that is the same at every occurrence, and a detail with the figures."""

    title: str
    detail: str


def alerts(facts: Facts) -> Iterator[Alert]:
    """Yield the current problems, from the start of the chain to its end."""
    if facts.unreadable is not None:
        yield Alert("Kafka cannot be read", facts.unreadable)
    yield from _spark_alerts(facts)
    yield from _subscriber_alerts(facts)


def _spark_alerts(facts: Facts) -> Iterator[Alert]:
    if facts.batch_s is not None and facts.batch_s > facts.trigger_s:
        yield Alert(
            "Micro-batches take longer than the trigger interval",
            f"the newest took {facts.batch_s:.2f} s and one is due every {facts.trigger_s:g} s: the delay of the "
            "windows grows while this lasts",
        )
    if not facts.lag:
        return
    quiet_s = None if facts.reported_ns is None else (facts.now_ns - facts.reported_ns) / NS_PER_S
    if quiet_s is not None and quiet_s > 3 * facts.trigger_s + SILENT_SPARK_S:
        yield Alert(
            "Spark is silent",
            f"{facts.lag:,} reactions wait and Spark's last report is {quiet_s:.0f} s old: check Spark's log",
        )
    # Up to one trigger interval of reactions always waits, and another one during a batch.
    usual = 2 * facts.trigger_s * (facts.arriving_per_s or 0.0)
    if facts.lag > max(LAG_MIN, 1.5 * usual):
        yield Alert(
            "Spark is falling behind",
            f"{facts.lag:,} reactions wait; up to {usual:,.0f} is usual at this rate",
        )


def _subscriber_alerts(facts: Facts) -> Iterator[Alert]:
    clusters: dict[str, list[Member]] = {}
    for member in facts.members:
        clusters.setdefault(member.announcement.cluster, []).append(member)
    if not any(member.live for member in facts.members):
        yield Alert(
            "No subscriber is live", "clients cannot connect: start a subscriber (python -m pipeline.subscriber)"
        )
    for cluster, members in clusters.items():
        silent = [member.announcement.subscriber for member in members if not member.live]
        if silent:
            yield Alert(
                "A subscriber is silent",
                f"cluster {cluster}: {', '.join(silent)} ({len(silent)} of {len(members)}); clients move to live ones",
            )
        for member in members:
            behind = _behind(member.announcement.last_event_id, facts)
            if member.live and behind is not None:
                yield Alert("A subscriber is behind", f"{cluster}/{member.announcement.subscriber} {behind}")


def _behind(last_event_id: str | None, facts: Facts) -> str | None:
    """Return how far a subscriber is behind the newest window; None if it is not, or that window is on its way."""
    newest = facts.newest
    if newest is None:
        return None
    on_its_way = facts.now_ns - newest.emitted_ns < 2 * facts.trigger_s * NS_PER_S
    epoch, _, number = (last_event_id or "").rpartition(":")
    if epoch != newest.epoch or not number.isdecimal():
        return None if on_its_way else f"has no window of epoch {newest.epoch}"
    windows = newest.window - int(number)
    return f"is {windows} windows behind" if windows > (BEHIND_MAX if on_its_way else 0) else None
