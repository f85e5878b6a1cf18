"""Records that nobody expects, for every topic: what another program, another version or an attacker may write."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from pipeline import dead_letters
from pipeline.messages import Announcement, ClusterRoute, TypeCount, Window, encode

if TYPE_CHECKING:
    from experiments.faults.scene import HarmedChain

FAR = 2**62
HUGE = "1" + "0" * 400
FLOOD = "types-flood"
# Kinds that have more than this are written a few times only: they would fill the topics, and not with more kinds.
BULKY_BYTES, BULKY_TIMES = 100_000, 10
READ_TOPICS = (
    "emoji-events", "emoji-aggregates", "cluster-1", "cluster-1-feed", "clusters", "subscribers", "client-registry",
)  # fmt: skip
"""The topics that a stage reads."""


class Poison(NamedTuple):
    """A kind of record: its name, its topic without the prefix, its key and its values."""

    name: str
    topic: str
    key: bytes | None
    values: list[bytes | None]

    @property
    def bulky(self) -> bool:
        """Whether it is too large to be written as often as others. The flood is."""
        return sum(len(value or b"") for value in self.values) > BULKY_BYTES

    def times(self, share: int) -> int:
        """Return how often to write it, so that it is `share` records or more; once if that is 0."""
        if self.name == FLOOD or not share:
            return 1
        return BULKY_TIMES if self.bulky else math.ceil(share / len(self.values))


def into(scene: HarmedChain, least: int = 0) -> Counter[str]:
    """Write every kind of poison, each into its topic; return how many records of each.

    Without the flood they are `least` or more: equally many of every kind but those that are bulky.
    """
    every = kinds(scene)
    share = math.ceil(least / sum(not each.bulky for each in every))
    written: Counter[str] = Counter()
    for each in every:
        values = each.values * each.times(share)
        scene.write(each.topic, *values, key=each.key)
        written[each.name] = len(values)
    return written


def without_flood(written: Mapping[str, int]) -> int:
    """Return how many records were written beside the flood, which alone is more than all others."""
    return sum(count for name, count in written.items() if name != FLOOD)


def until_taken(scene: HarmedChain) -> None:
    """Wait until there is a dead letter of each topic that a stage reads, and a new reaction is in a window.

    Raises EmoStreamError if that does not happen.
    """
    expected = {f"{scene.endpoints.topic_prefix}{name}" for name in READ_TOPICS}

    def told() -> bool:
        with scene.bus() as bus:
            letters = dead_letters.kept(bus.read(scene.names.dead_letters.name))
        return expected <= {letter.topic for letter in letters}

    scene.until(told, "each topic with poison has a dead letter", 60)
    scene.until_flowing()
    scene.until(lambda: scene.stages() == scene.wanted, "every stage runs", 60)


def _window(epoch: str, number: int, kinds: int = 0, pad: int = 20) -> bytes:
    cells = [TypeCount(f"t{index:08d}{'x' * pad}", 1, 1) for index in range(kinds)]
    return encode(Window(epoch, number, 0, 0, {}, kinds, cells))


def _told(kind: str) -> bytes:
    return encode(Window("told", 0, 0, 0, {"emoji-events-0": (0, 0)}, 1, [TypeCount(kind, 1, 1)]))


def _event(kind: str) -> bytes:
    return json.dumps(
        {"user_id": "p", "emoji_type": kind, "timestamp": "2026-01-01T00:00:00Z", "accepted_ns": 1, "flushed_ns": 1}
    ).encode()


def kinds(scene: HarmedChain) -> list[Poison]:
    """Return every kind, made for this chain's last epoch."""
    last, now_ns = scene.windows()[-1], time.time_ns()
    epoch, near = last.epoch, last.window + 1_000
    registration = (
        b'{"client_id":"other","token_sha256":"\xc3\xa9","cluster":"1","subscriber":"1","registered_ns":'
        + b"9" * 30
        + b"}"
    )
    overflow = (
        b'{"subscriber":"8","cluster":"9","url":"http://x","clients":' + HUGE.encode() + b',"announced_ns":%d}' % now_ns
    )
    number = (
        b'{"epoch":"p","window":1,"trigger_ns":-'
        + HUGE.encode()
        + b',"emitted_ns":1,"offsets":{},"total":1,"reactions":[]}'
    )
    bad_urls: list[bytes | None] = [
        encode(Announcement("9", "7", url, 0, now_ns)) for url in ("http://[bad", "http://x\r\ny")
    ]
    return [
        Poison("not-json", "emoji-events", None, [b"\xff\xfe nonsense", b"", b"[]", b"null", None, b"{" * 5000]),
        Poison("markup", "emoji-events", None, [_event("<img src=x onerror=alert(1)>"), b'{"emoji_type":12345}']),
        Poison("oversize-types", "emoji-events", None, [_event("A" * 600_000), _event("B" * 600_000)]),
        Poison(FLOOD, "emoji-events", None, [_event(f"type-{index}") for index in range(30_000)]),
        Poison("odd-user", "emoji-events", None, [b'{"user_id":"\xff","emoji_type":"word"}']),
        Poison("oversize-window", "emoji-aggregates", b"x", [_window("poison", 1, 13_300)]),
        Poison("far-window", "emoji-aggregates", b"x", [_window(epoch, FAR)]),
        Poison("near-window", "emoji-aggregates", b"x", [_window(epoch, near)]),
        Poison("markup-window", "emoji-aggregates", b"x", [_told("<img src=x onerror=alert(1)>"), _told("😂")]),
        Poison("huge-number", "emoji-aggregates", b"x", [number]),
        Poison("epoch-newline", "emoji-aggregates", b"x", [_window("a\nid: b", 1)]),
        Poison("cluster-far", "cluster-1", b"x", [_window(epoch, FAR), _window(epoch, near)]),
        Poison("feed-far", "cluster-1-feed", b"x", [_window(epoch, FAR), _window(epoch, near)]),
        Poison("route-name", "clusters", b"bad name!", [encode({"cluster": "bad name!", "from_offset": 0})]),
        Poison("route-feed", "clusters", b"1-feed", [encode({"cluster": "1-feed", "from_offset": 0})]),
        Poison("route-offset", "clusters", b"9", [b'{"cluster":"9","from_offset":' + b"9" * 30 + b"}"]),
        Poison("route-far", "clusters", b"1", [encode(ClusterRoute("1", FAR))]),
        Poison("route-key", "clusters", b"other", [encode(ClusterRoute("1", 0))] * 5),
        Poison("ghost", "subscribers", b"9/9", [encode(Announcement("9", "9", "http://127.0.0.1:9", 0, 4 * 10**18))]),
        Poison("overflow", "subscribers", b"9/8", [overflow]),
        Poison("bad-url", "subscribers", b"9/7", bad_urls),
        Poison("odd-registration", "client-registry", b"k", [registration]),
        Poison("odd-progress", "spark-progress", None, [b"{}", b"\xff"]),
    ]
