"""How long to wait before another attempt: a crowd that lost its subscriber must not return all at once."""

from __future__ import annotations

import random
from collections.abc import Callable

BASE_S = 1.0
"""The base if no server has set one."""
BASE_MIN_S = 0.1
"""The smallest base: `retry: 0` must not become a busy loop."""
# Larger exponents exceed every cap.
_DOUBLINGS_MAX = 16


def bound_s(failures: int, base_s: float, cap_s: float) -> float:
    """Return the longest wait after `failures` failures in a row, seconds: base, 2 base, 4 base, … up to the cap.

    A base above the cap is the server's wish, and stays.
    """
    base_s = max(base_s, BASE_MIN_S)
    return max(base_s, min(cap_s, base_s * 2.0 ** min(failures, _DOUBLINGS_MAX)))


def wait_s(
    failures: int,
    base_s: float,
    cap_s: float,
    retry_after_s: float = 0.0,
    draw: Callable[[], float] = random.random,
) -> float:
    """Return how long to wait before the next attempt, seconds.

    Full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): uniform between 0 and the
    bound, plus `retry_after_s`, which a server demands (RFC 9110, section 10.2.3). `draw()` is uniform in [0, 1).
    """
    return retry_after_s + draw() * bound_s(failures, base_s, cap_s)
