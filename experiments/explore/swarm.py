"""The position of each emoji of a window on screen: a function of the window alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pipeline.messages import TypeCount

WIDTH, HEIGHT = 720, 300
MOST = 240
"""At most this many emoji are drawn; of more, every type keeps its share."""

_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
_LARGEST, _SMALLEST = 56.0, 13.0


@dataclass(frozen=True)
class Placed:
    """One emoji on a field of WIDTH x HEIGHT: its centre and its size."""

    emoji_type: str
    x: float
    y: float
    size: float


def shown(reactions: Sequence[TypeCount], most: int = MOST) -> dict[str, int]:
    """Return how many emoji of each type are drawn, the most frequent first: its representatives, or a share of `most`.

    A type that has representatives never vanishes, so more than `most` are drawn if there are more types.
    """
    ranked = sorted(reactions, key=lambda reaction: (-reaction.representatives, reaction.emoji_type))
    total = sum(reaction.representatives for reaction in ranked)
    share = min(1.0, most / total) if total else 0.0
    return {
        reaction.emoji_type: max(1, math.floor(reaction.representatives * share))
        for reaction in ranked
        if reaction.representatives > 0
    }


def layout(reactions: Sequence[TypeCount], seed: str) -> list[Placed]:
    """Place every emoji of a window: the most frequent types larger and near the centre, the rest by `seed`.

    The positions are those of a sunflower's seeds: evenly spread for any number, so that no emoji covers another.
    """
    numbers = shown(reactions)
    total = sum(numbers.values())
    if not total:
        return []
    rng = random.Random(seed)
    first = next(iter(numbers.values()))
    crowd = [
        (rank + rng.uniform(0, 2.5), kind, number / first)
        for rank, (kind, number) in enumerate(numbers.items())
        for _ in range(number)
    ]
    crowd.sort(key=lambda ranked: ranked[0])
    largest = max(_SMALLEST, min(_LARGEST, 0.68 * math.sqrt(WIDTH * HEIGHT / total)))
    margin = 0.65 * largest
    positions = _sunflower(total, WIDTH / 2 - margin, HEIGHT / 2 - margin, rng.uniform(0, 2 * math.pi))
    return [
        Placed(
            kind,
            round(WIDTH / 2 + x, 1),
            round(HEIGHT / 2 + y, 1),
            round(largest * (0.65 + 0.35 * math.sqrt(share)), 1),
        )
        for (x, y), (_, kind, share) in zip(positions, crowd, strict=True)
    ]


def _sunflower(count: int, across: float, down: float, turn: float) -> list[tuple[float, float]]:
    """Return `count` positions in an ellipse of these half axes around (0, 0), from the centre outwards.

    They are cut from a round sunflower: stretching one would move neighbours together.
    """
    apart = math.sqrt(across * down / count)
    distances = (apart * math.sqrt(index + 0.5) for index in range(math.ceil((across / apart) ** 2) + count))
    seeds = [
        (r * math.cos(turn + i * _GOLDEN_ANGLE), r * math.sin(turn + i * _GOLDEN_ANGLE))
        for i, r in enumerate(distances)
    ]
    ranked = sorted((math.hypot(x / across, y / down), x, y) for x, y in seeds)[:count]
    furthest = max(1.0, ranked[-1][0])
    return [(x / furthest, y / furthest) for _, x, y in ranked]


def draw(reactions: Sequence[TypeCount], seed: str) -> str:
    """Return the swarm as SVG; its label for screen readers lists the types and their representatives."""
    label = ", ".join(f"{r.emoji_type} {r.representatives}" for r in reactions if r.representatives)
    marks = "".join(
        f'<text x="{one.x}" y="{one.y}" font-size="{one.size}">{escape(one.emoji_type)}</text>'
        for one in layout(reactions, seed)
    )
    return (
        f'<svg class="swarm" role="img" aria-label="On screen: {escape(label or "nothing")}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" text-anchor="middle" dominant-baseline="central">{marks}</svg>'
    )
